#include <nanobind/stl/string.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "seam.hpp"
#include "seam_cases.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace memrt {

namespace {

nb::dict to_dict(const SeamCounters& counters) {
    nb::dict out;
    out["accepted"] = counters.accepted;
    out["refused"] = counters.refused;
    out["clamped"] = counters.clamped;
    out["late_actions"] = counters.late_actions;
    out["limit_brakes"] = counters.limit_brakes;
    out["plan_failures"] = counters.plan_failures;
    out["gaps"] = counters.gaps;
    return out;
}

nb::dict play_seam_cases(std::uint64_t first, std::uint64_t count) {
    auto report = std::make_unique<SeamReport>();
    {
        const nb::gil_scoped_release others_may_run;
        for (std::uint64_t i = 0; i < count; ++i) play_seam_case(first + i, *report);
    }
    nb::dict out;
    out["cases"] = report->cases;
    out["commands"] = report->commands;
    out["chunks"] = report->chunks;
    out["refused"] = report->refused;
    out["dropouts"] = report->dropouts;
    out["stops"] = report->stops;
    out["limit_brakes"] = report->limit_brakes;
    out["plan_failures"] = report->plan_failures;
    out["speed_used"] = report->used[0];
    out["acceleration_used"] = report->used[1];
    out["jerk_used"] = report->used[2];
    out["outside"] = report->outside;
    out["violations"] = report->violations;
    out["first_violation"] = report->first_violation;
    out["worst_tracked"] = report->worst_tracked;
    out["infeasible"] = report->infeasible;
    out["too_short"] = report->too_short;
    auto* rms = new std::vector<double>(std::move(report->tracking_rms));
    const nb::capsule owner(rms, [](void* held) noexcept { delete static_cast<std::vector<double>*>(held); });
    out["tracking_rms"] = nb::ndarray<nb::numpy, double, nb::ndim<1>>(rms->data(), {rms->size()}, owner);
    return out;
}

}  // namespace

void bind_seam(nb::module_& m) {
    nb::class_<SeamLimits>(
        m, "SeamLimits",
        "Limits of one arm: q_min, q_max [rad], dq_max [rad/s], ddq_max [rad/s²], dddq_max [rad/s³], "
        "float64 [7] each. ValueError unless finite, ordered and above zero.")
        .def(
            "__init__",
            [](SeamLimits* self, const Vector& q_min, const Vector& q_max, const Vector& dq_max, const Vector& ddq_max,
               const Vector& dddq_max) {
                const SeamLimits limits{to_joints(q_min), to_joints(q_max), to_joints(dq_max), to_joints(ddq_max),
                                        to_joints(dddq_max)};
                limits.check();
                new (self) SeamLimits(limits);
            },
            "q_min"_a, "q_max"_a, "dq_max"_a, "ddq_max"_a, "dddq_max"_a)
        .def_static("fr3", &SeamLimits::fr3, "margin"_a = 0.02,
                    "The Franka Research 3 with `margin` [rad] kept from both ends of every joint's range.")
        .def_prop_ro(
            "q_min", [](const SeamLimits& self) { return to_numpy(self.q_min); }, nb::rv_policy::move)
        .def_prop_ro(
            "q_max", [](const SeamLimits& self) { return to_numpy(self.q_max); }, nb::rv_policy::move)
        .def_prop_ro(
            "dq_max", [](const SeamLimits& self) { return to_numpy(self.dq_max); }, nb::rv_policy::move)
        .def_prop_ro(
            "ddq_max", [](const SeamLimits& self) { return to_numpy(self.ddq_max); }, nb::rv_policy::move)
        .def_prop_ro("dddq_max", [](const SeamLimits& self) { return to_numpy(self.dddq_max); }, nb::rv_policy::move);

    nb::class_<Seam>(m, "Seam",
                     "Turns timed action chunks into joint commands inside position, speed, acceleration and jerk "
                     "limits. Pure: no clock, no thread; one owner.")
        .def(nb::init<const SeamLimits&, double, double, double>(), "limits"_a, "preview_s"_a = 0.060,
             "replan_s"_a = 0.010, "speed"_a = 1.0)
        .def(
            "reset",
            [](Seam& self, const Vector& q, double gripper, std::int64_t t_ns) {
                self.reset(to_joints(q), gripper, t_ns);
            },
            "q"_a, "gripper"_a, "t_ns"_a, "At rest at `q` float64 [7] at `t_ns`; everything pushed is forgotten.")
        .def(
            "push",
            [](Seam& self, const Matrix& actions, std::int64_t t0_ns, std::int64_t dt_ns) {
                return std::string(describe(self.push(to_actions(actions), t0_ns, dt_ns)));
            },
            "actions"_a, "t0_ns"_a, "dt_ns"_a,
            "Replaces everything from `t0_ns` on by float64 [horizon, 8]; \"\" or the reason it was refused.")
        .def(
            "step",
            [](Seam& self, std::int64_t t_ns) {
                const Command command = self.step(t_ns);
                return nb::make_tuple(to_numpy(command.q), to_numpy(command.dq), command.gripper);
            },
            "t_ns"_a, "(q float64 [7], dq float64 [7], gripper) for `t_ns`, which must not decrease.")
        .def(
            "planned", [](const Seam& self, std::int64_t t_ns) { return to_numpy(self.planned(t_ns)); }, "t_ns"_a,
            "Where the arm is to be at `t_ns` by what was pushed, float64 [7]; without a plan, where the command is.")
        .def("stop", &Seam::stop, "t_ns"_a, "Drops the future and brakes inside the limits; chunks are refused.")
        .def("resume", &Seam::resume, "Accepts chunks again after a stop.")
        .def("remaining_s", &Seam::remaining_s, "t_ns"_a, "How much of the pushed future lies after `t_ns` [s].")
        .def("at_rest", &Seam::at_rest, "Whether the last command is at rest.")
        .def_prop_ro("stopped", &Seam::stopped)
        .def("counters", [](const Seam& self) { return to_dict(self.counters()); });

    m.def("play_seam_cases", &play_seam_cases, "first"_a, "count"_a,
          "Plays random cases number `first` to `first + count - 1` on a virtual clock, without Python's lock, and "
          "checks "
          "every command: what seam_cases.hpp's SeamReport says, `tracking_rms` as float64 [n] in rad.");
}

}  // namespace memrt
