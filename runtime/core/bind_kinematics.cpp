#include <algorithm>
#include <array>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "kinematics.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace memrt {

namespace {

constexpr std::size_t kPoseDim = 7;  // position [m], unit quaternion (w, x, y, z)

using Owned = nb::ndarray<nb::numpy, double, nb::ndim<2>>;

Owned to_matrix(std::vector<double>&& values, std::size_t columns) {
    auto* held = new std::vector<double>(std::move(values));
    const nb::capsule owner(held, [](void* data) noexcept { delete static_cast<std::vector<double>*>(data); });
    return Owned(held->data(), {held->size() / columns, columns}, owner);
}

std::size_t rows(const Matrix& values, std::size_t columns, const char* what) {
    if (values.shape(1) != columns) throw nb::value_error(what);
    return values.shape(0);
}

Kinematics make(const Matrix& dh, const Matrix& tool) {
    if (rows(dh, 3, "dh: expected float64 [7, 3]") != kJoints) throw nb::value_error("dh: expected float64 [7, 3]");
    if (rows(tool, 4, "tool: expected float64 [3, 4]") != 3) throw nb::value_error("tool: expected float64 [3, 4]");
    std::array<DhRow, kJoints> table;
    for (std::size_t j = 0; j < kJoints; ++j) table[j] = {dh(j, 0), dh(j, 1), dh(j, 2)};
    std::array<double, 12> transform;
    std::copy_n(tool.data(), transform.size(), transform.begin());
    return {table, transform};
}

Owned forward(const Kinematics& self, const Matrix& q) {
    const std::size_t count = rows(q, kJoints, "q: expected float64 [n, 7]");
    std::vector<double> poses;
    poses.reserve(count * kPoseDim);
    for (std::size_t i = 0; i < count; ++i) {
        JointArray joints;
        std::copy_n(q.data() + i * kJoints, kJoints, joints.begin());
        const Pose pose = self.forward(joints);
        poses.insert(poses.end(), pose.position.begin(), pose.position.end());
        poses.insert(poses.end(), pose.rotation.begin(), pose.rotation.end());
    }
    return to_matrix(std::move(poses), kPoseDim);
}

nb::tuple follow(const Kinematics& self, const Matrix& poses, const Vector& from, const Vector& q_min,
                 const Vector& q_max, const Vector& home, double pull, double position_tolerance,
                 double rotation_tolerance) {
    const std::size_t count = rows(poses, kPoseDim, "poses: expected float64 [n, 7]");
    const Posture posture{to_joints(q_min), to_joints(q_max), to_joints(home), pull};
    JointArray q = to_joints(from);
    std::vector<double> joints;
    std::vector<double> errors;
    joints.reserve(count * kJoints);
    errors.reserve(count * 2);
    for (std::size_t i = 0; i < count; ++i) {
        Pose target;
        std::copy_n(poses.data() + i * kPoseDim, 3, target.position.begin());
        std::copy_n(poses.data() + i * kPoseDim + 3, 4, target.rotation.begin());
        const Reached reached = self.solve(target, q, posture);
        q = reached.q;
        joints.insert(joints.end(), q.begin(), q.end());
        errors.insert(errors.end(), {reached.position_error, reached.rotation_error});
        const bool near = reached.position_error <= position_tolerance && reached.rotation_error <= rotation_tolerance;
        if (!near) break;  // nor is an error that is no number
    }
    return nb::make_tuple(to_matrix(std::move(joints), kJoints), to_matrix(std::move(errors), 2));
}

}  // namespace

void bind_kinematics(nb::module_& m) {
    nb::class_<Kinematics>(m, "Kinematics",
                           "Forward and inverse kinematics of a seven-joint arm. Poses are float64 [n, 7]: position "
                           "[m] and unit quaternion (w, x, y, z) of the tool centre point in the base's frame.")
        .def(
            "__init__",
            [](Kinematics* self, const Matrix& dh, const Matrix& tool) { new (self) Kinematics(make(dh, tool)); },
            "dh"_a, "tool"_a,
            "`dh` float64 [7, 3]: rows (a, d, alpha) of the modified Denavit-Hartenberg table [m, m, rad]; `tool` "
            "float64 [3, 4]: the tool centre point in the last joint's frame.")
        .def("forward", &forward, "q"_a, "Joint angles float64 [n, 7] to poses float64 [n, 7].")
        .def("follow", &follow, "poses"_a, "start"_a, "q_min"_a, "q_max"_a, "home"_a, "pull"_a, "position_tolerance"_a,
             "rotation_tolerance"_a,
             "Joint angles float64 [m, 7] for a path of n poses, each found from the one before it, the first from "
             "`start`, and what is missing to each, float64 [m, 2] in m and rad. Ends with the first pose that is "
             "missed by more than the tolerances, so m <= n. `pull`: which share of the distance to `home` is gone per "
             "pose, as far as the pose allows. Poses must be finite.");
}

}  // namespace memrt
