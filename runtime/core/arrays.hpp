#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <span>
#include <vector>

#include "seam.hpp"

namespace memrt {

/// \brief float64 [n], C-contiguous; other dtypes and layouts are converted on the way in.
using Vector = nanobind::ndarray<const double, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
/// \brief float64 [rows, columns], C-contiguous.
using Matrix = nanobind::ndarray<const double, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;

/// \brief Copies seven numbers out of an array, or throws ValueError.
inline JointArray to_joints(const Vector& values) {
    if (values.shape(0) != kJoints) throw nanobind::value_error("expected a float64 array of 7 joints");
    JointArray joints;
    std::copy_n(values.data(), kJoints, joints.begin());
    return joints;
}

/// \brief Views an action chunk [horizon, 8] as rows, or throws ValueError.
inline std::span<const Action> to_actions(const Matrix& values) {
    if (values.shape(1) != kActionDim) throw nanobind::value_error("expected a float64 array [horizon, 8] of actions");
    static_assert(sizeof(Action) == kActionDim * sizeof(double));
    return {reinterpret_cast<const Action*>(values.data()), values.shape(0)};
}

/// \brief A new numpy float64 [7] that owns its data.
inline auto to_numpy(const JointArray& joints) {
    auto* data = new JointArray(joints);
    const nanobind::capsule owner(data, [](void* held) noexcept { delete static_cast<JointArray*>(held); });
    return nanobind::ndarray<nanobind::numpy, double, nanobind::ndim<1>>(data->data(), {kJoints}, owner);
}

}  // namespace memrt
