#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "limits.hpp"

namespace memrt {

/// \brief One row of a modified (Craig's) Denavit–Hartenberg table: the joint's frame from the one before it, at angle
/// 0.
struct DhRow {
    double a = 0.0;      ///< Along the last x axis [m].
    double d = 0.0;      ///< Along the joint's own axis [m].
    double alpha = 0.0;  ///< About the last x axis [rad].
};

/// \brief Where a frame is: position [m] and unit quaternion (w, x, y, z), both in the frame of the arm's base.
struct Pose {
    std::array<double, 3> position{};
    std::array<double, 4> rotation{1.0, 0.0, 0.0, 0.0};
};

/// \brief Joint angles for a pose, and what is missing to it.
struct Reached {
    JointArray q{};
    double position_error = 0.0;  ///< [m]
    double rotation_error = 0.0;  ///< [rad]
};

/// \brief What inverse kinematics may choose: seven joints reach six-dimensional poses in many ways.
struct Posture {
    JointArray q_min{};  ///< [rad]
    JointArray q_max{};  ///< [rad]
    JointArray home{};   ///< Among the solutions, those nearer to this one are preferred [rad].
    double pull = 0.0;   ///< Which share of the distance to `home` is gone per pose, as far as the pose allows; 0 to 1.
};

/// \brief Forward and inverse kinematics of a seven-joint arm with a tool.
///
/// Inverse: damped least squares from where the arm is, with the damping of Sugihara (Solvability-unconcerned inverse
/// kinematics by the Levenberg–Marquardt method, IEEE T-RO 2011), joints that meet their end locked there. It finds the
/// solution on the branch it starts on, or none; it never jumps to another one. No allocation.
class Kinematics {
  public:
    /// \param dh   The joints, from the base on.
    /// \param tool The tool centre point in the last joint's frame, row by row: rotation and translation [3][4].
    Kinematics(const std::array<DhRow, kJoints>& dh, const std::array<double, 12>& tool);

    /// \brief Where the tool centre point is.
    Pose forward(const JointArray& q) const;

    /// \brief Joint angles near `from` whose tool centre point is at `target`, whose rotation must be a unit
    /// quaternion.
    Reached solve(const Pose& target, const JointArray& from, const Posture& posture) const;

  private:
    struct Frames;
    Frames frames(const JointArray& q) const;

    std::array<DhRow, kJoints> dh_;
    std::array<double, 12> tool_;
    std::array<double, kJoints> cos_alpha_{};
    std::array<double, kJoints> sin_alpha_{};
};

}  // namespace memrt
