#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <stdexcept>

namespace memrt {

inline constexpr std::size_t kJoints = 7;
using JointArray = std::array<double, kJoints>;

/// \brief What the commands of one arm may never exceed, joint by joint (SI units).
struct SeamLimits {
    JointArray q_min{};     ///< Lowest joint angle [rad].
    JointArray q_max{};     ///< Highest joint angle [rad].
    JointArray dq_max{};    ///< Speed [rad/s].
    JointArray ddq_max{};   ///< Acceleration [rad/s²].
    JointArray dddq_max{};  ///< Jerk [rad/s³].

    /// \brief Throws std::invalid_argument unless every limit is finite and leaves room to move.
    void check() const {
        for (std::size_t j = 0; j < kJoints; ++j) {
            const bool finite = std::isfinite(q_min[j]) && std::isfinite(q_max[j]) && std::isfinite(dq_max[j]) &&
                                std::isfinite(ddq_max[j]) && std::isfinite(dddq_max[j]);
            if (!finite) throw std::invalid_argument("SeamLimits: every limit must be finite");
            if (q_min[j] >= q_max[j]) throw std::invalid_argument("SeamLimits: q_min must be below q_max");
            if (dq_max[j] <= 0.0 || ddq_max[j] <= 0.0 || dddq_max[j] <= 0.0) {
                throw std::invalid_argument("SeamLimits: speed, acceleration and jerk limits must be above zero");
            }
        }
    }

    /// \brief The Franka Research 3: angles and speeds from its datasheet, 10 rad/s² and 5000 rad/s³ for every joint.
    ///
    /// `margin` [rad] is kept from both ends of every joint's range, so that tracking error does not reach the
    /// robot's own limits.
    static SeamLimits fr3(double margin = 0.02) {
        SeamLimits limits{
            .q_min = {-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159},
            .q_max = {2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159},
            .dq_max = {2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26},
            .ddq_max = {},
            .dddq_max = {},
        };
        for (std::size_t j = 0; j < kJoints; ++j) {
            limits.q_min[j] += margin;
            limits.q_max[j] -= margin;
        }
        limits.ddq_max.fill(10.0);
        limits.dddq_max.fill(5000.0);
        limits.check();
        return limits;
    }
};

}  // namespace memrt
