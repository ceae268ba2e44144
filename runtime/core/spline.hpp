#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "limits.hpp"

namespace memrt {

/// \brief Position, velocity and acceleration of all joints at one time.
struct JointState {
    JointArray q{};
    JointArray dq{};
    JointArray ddq{};
};

/// \brief A point the arm is to pass: a time, seven angles and the gripper opening that holds from then on.
struct Waypoint {
    std::int64_t t_ns = 0;
    JointArray q{};
    double gripper = 0.0;
};

/// \brief C2 cubic spline through timed waypoints with given velocity at its first point and rest at its last.
///
/// Storage is fixed: `kCapacity` waypoints, no allocation ever. Times must grow strictly from point to point;
/// neighbours much closer than the usual step make a cubic swing, so the caller keeps them apart.
class Spline {
  public:
    static constexpr std::size_t kCapacity = 256;

    void clear() { size_ = 0; }
    std::size_t size() const { return size_; }
    bool full() const { return size_ == kCapacity; }
    const Waypoint& operator[](std::size_t i) const { return points_[i]; }
    const Waypoint& back() const { return points_[size_ - 1]; }
    void append(const Waypoint& point) { points_[size_++] = point; }

    /// \brief Keeps the points [first, end) only. The rates are stale until the next solve().
    void keep(std::size_t first, std::size_t end) {
        for (std::size_t i = first; i < end; ++i) points_[i - first] = points_[i];
        size_ = end - first;
    }

    /// \brief Velocity at point i as of the last solve() [rad/s].
    const JointArray& rate(std::size_t i) const { return rates_[i]; }

    /// \brief Finds the velocities at the points that make the curve C2 (tridiagonal, one sweep per joint).
    void solve(const JointArray& first_rate) {
        if (size_ == 0) return;
        rates_[0] = first_rate;
        if (size_ == 1) return;
        rates_[size_ - 1].fill(0.0);
        // Thomas algorithm on rows 1..n-2: m[i-1]/h0 + 2 m[i] (1/h0 + 1/h1) + m[i+1]/h1 = 3 (s0/h0 + s1/h1).
        for (std::size_t i = 1; i + 1 < size_; ++i) {
            const double before = seconds(i - 1);
            const double after = seconds(i);
            const double lower = 1.0 / before;
            const double upper = 1.0 / after;
            const double pivot = 2.0 * (lower + upper) - (i > 1 ? lower * ratio_[i - 1] : 0.0);
            ratio_[i] = upper / pivot;
            for (std::size_t j = 0; j < kJoints; ++j) {
                const double slope0 = (points_[i].q[j] - points_[i - 1].q[j]) / before;
                const double slope1 = (points_[i + 1].q[j] - points_[i].q[j]) / after;
                rates_[i][j] = (3.0 * (slope0 * lower + slope1 * upper) - lower * rates_[i - 1][j]) / pivot;
            }
        }
        for (std::size_t i = size_ - 1; i-- > 1;) {
            for (std::size_t j = 0; j < kJoints; ++j) rates_[i][j] -= ratio_[i] * rates_[i + 1][j];
        }
    }

    /// \brief The curve at `t_ns`; before the first point: that point; from the last on: that point, at rest.
    JointState at(std::int64_t t_ns) const {
        JointState state;
        if (size_ == 0) return state;
        if (t_ns >= back().t_ns) {
            state.q = back().q;
            return state;
        }
        if (t_ns <= points_[0].t_ns) {
            state.q = points_[0].q;
            state.dq = rates_[0];
            return state;
        }
        std::size_t i = 0;
        while (points_[i + 1].t_ns <= t_ns) ++i;
        const double h = seconds(i);
        const double s = static_cast<double>(t_ns - points_[i].t_ns) * 1e-9;
        for (std::size_t j = 0; j < kJoints; ++j) {
            const double slope = (points_[i + 1].q[j] - points_[i].q[j]) / h;
            const double c2 = (3.0 * slope - 2.0 * rates_[i][j] - rates_[i + 1][j]) / h;
            const double c3 = (rates_[i][j] + rates_[i + 1][j] - 2.0 * slope) / (h * h);
            state.q[j] = points_[i].q[j] + s * (rates_[i][j] + s * (c2 + s * c3));
            state.dq[j] = rates_[i][j] + s * (2.0 * c2 + 3.0 * c3 * s);
            state.ddq[j] = 2.0 * c2 + 6.0 * c3 * s;
        }
        return state;
    }

  private:
    double seconds(std::size_t i) const { return static_cast<double>(points_[i + 1].t_ns - points_[i].t_ns) * 1e-9; }

    std::array<Waypoint, kCapacity> points_{};
    std::array<JointArray, kCapacity> rates_{};
    std::array<double, kCapacity> ratio_{};
    std::size_t size_ = 0;
};

}  // namespace memrt
