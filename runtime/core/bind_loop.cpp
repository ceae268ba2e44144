#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <string>

#include "arrays.hpp"
#include "bindings.hpp"
#include "chunk_buffer.hpp"
#include "control_loop.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace memrt {

namespace {

nb::dict to_dict(const Histogram& histogram) {
    nb::dict out;
    out["count"] = histogram.count();
    out["median"] = histogram.quantile(0.5);
    out["p90"] = histogram.quantile(0.9);
    out["p99"] = histogram.quantile(0.99);
    out["p999"] = histogram.quantile(0.999);
    out["max"] = histogram.max();
    return out;
}

nb::dict stats(const ControlLoop& loop) {
    const ControlStatus status = loop.status();
    nb::dict out;
    out["running"] = loop.running();
    out["realtime"] = loop.realtime();
    out["ticks"] = status.ticks;
    out["missed_ticks"] = status.missed_ticks;
    out["starved_ticks"] = status.starved_ticks;
    out["late_ns"] = to_dict(loop.lateness());
    out["work_ns"] = to_dict(loop.work());
    out["accepted"] = status.seam.accepted;
    out["rejected"] = loop.rejected() + status.seam.refused;
    out["replaced"] = loop.replaced();
    out["clamped"] = status.seam.clamped;
    out["late_actions"] = status.seam.late_actions;
    out["limit_brakes"] = status.seam.limit_brakes;
    out["plan_failures"] = status.seam.plan_failures;
    out["revision"] = status.revision;
    out["remaining_s"] = status.remaining_s;
    out["stopped"] = status.stopped;
    out["at_rest"] = status.at_rest;
    return out;
}

nb::object take(ChunkBuffer& buffer) {
    const TimedChunk* chunk = buffer.take();
    if (chunk == nullptr) return nb::none();
    auto* actions = new std::vector<Action>(chunk->rows().begin(), chunk->rows().end());
    const nb::capsule owner(actions, [](void* held) noexcept { delete static_cast<std::vector<Action>*>(held); });
    const nb::ndarray<nb::numpy, double, nb::ndim<2>> array(actions->data()->data(), {actions->size(), kActionDim},
                                                            owner);
    return nb::make_tuple(array, chunk->t0_ns, chunk->dt_ns, chunk->revision);
}

}  // namespace

void bind_loop(nb::module_& m) {
    nb::class_<ChunkBuffer>(m, "ChunkBuffer",
                            "Newest-wins mailbox of action chunks: any thread puts, one thread takes, nobody waits.")
        .def(nb::init<>())
        .def(
            "put",
            [](ChunkBuffer& self, const Matrix& actions, std::int64_t t0_ns, std::int64_t dt_ns,
               std::int64_t revision) { self.put(to_actions(actions), t0_ns, dt_ns, revision); },
            "actions"_a, "t0_ns"_a, "dt_ns"_a, "revision"_a,
            "Replaces whatever was not taken yet. ValueError unless float64 [1..128, 8].")
        .def("take", &take, "(actions, t0_ns, dt_ns, revision) of the newest chunk not yet taken, or None.")
        .def_prop_ro("replaced", &ChunkBuffer::replaced);

    nb::class_<ControlLoop>(m, "ControlLoop",
                            "Steps a Seam at a fixed rate in its own thread: absolute deadlines, SCHED_FIFO where "
                            "permitted, never Python's lock.")
        .def(nb::init<const SeamLimits&, double, double, double, double, std::shared_ptr<TraceRing>>(), "limits"_a,
             "rate_hz"_a, "preview_s"_a = 0.060, "replan_s"_a = 0.010, "speed"_a = 1.0, "trace"_a = nb::none())
        .def(
            "start", [](ControlLoop& self, const Vector& q, double gripper) { self.start(to_joints(q), gripper); },
            "q"_a, "gripper"_a, "Starts the thread with the arm at rest at `q` float64 [7]. RuntimeError when running.")
        .def(
            "push",
            [](ControlLoop& self, const Matrix& actions, std::int64_t t0_ns, std::int64_t dt_ns,
               std::int64_t revision) {
                return std::string(describe(self.push(to_actions(actions), t0_ns, dt_ns, revision)));
            },
            "actions"_a, "t0_ns"_a, "dt_ns"_a, "revision"_a,
            "Hands float64 [horizon, 8] to the control thread; \"\" or the reason it was refused.")
        .def(
            "command",
            [](const ControlLoop& self) {
                const ControlStatus status = self.status();
                return nb::make_tuple(to_numpy(status.command.q), to_numpy(status.command.dq), status.command.gripper,
                                      status.t_ns);
            },
            "(q float64 [7], dq float64 [7], gripper, t_ns): the newest command and the time it is for.")
        .def(
            "planned", [](const ControlLoop& self, std::int64_t t_ns) { return to_numpy(self.planned(t_ns)); },
            "t_ns"_a,
            "Where the arm is to be at `t_ns` by the chunks taken, float64 [7]; without a plan, where the command is.")
        .def("stop", &ControlLoop::stop, nb::call_guard<nb::gil_scoped_release>(),
             "Brakes inside the limits; True once the control thread has acknowledged.")
        .def("resume", &ControlLoop::resume, nb::call_guard<nb::gil_scoped_release>(),
             "Accepts chunks again after a stop; True once acknowledged.")
        .def("set_speed", &ControlLoop::set_speed, "speed"_a,
             "Another factor (above 0, at most 1) on the speed limits; call it while stopped and at rest.")
        .def("shutdown", &ControlLoop::shutdown, nb::call_guard<nb::gil_scoped_release>(), "Ends the thread.")
        .def("stats", &stats, "Counters since start, lateness and work per tick in ns.")
        .def_prop_ro("running", &ControlLoop::running)
        .def_prop_ro("stopped", [](const ControlLoop& self) { return self.status().stopped; })
        .def_prop_ro("at_rest", [](const ControlLoop& self) { return self.status().at_rest; });

    m.def(
        "describe_refusal", [](std::int64_t refusal) { return describe(static_cast<Refusal>(refusal)); }, "refusal"_a,
        "The reason behind the value of a CHUNK_REFUSED event, in words.");

    nb::enum_<ControlEvent>(m, "ControlEvent", nb::is_arithmetic(), "Names of the control thread's trace events.")
        .value("CHUNK_TAKEN", ControlEvent::kChunkTaken)
        .value("CHUNK_REFUSED", ControlEvent::kChunkRefused)
        .value("MISSED_TICKS", ControlEvent::kMissedTicks)
        .value("STARVED", ControlEvent::kStarved)
        .value("STOP", ControlEvent::kStop)
        .value("RESUME", ControlEvent::kResume);
}

}  // namespace memrt
