#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <ruckig/ruckig.hpp>

#include "limits.hpp"
#include "spline.hpp"

namespace memrt {

/// \brief Plans the arm's motion piece by piece, so that every piece can be followed by braking inside all limits.
///
/// A piece is the first `piece_s` of a jerk-limited trajectory towards a target. A joint follows it only if braking
/// from the end of the piece still ends inside the joint's range and below its speed limit; otherwise the joint brakes
/// during the piece. As the first state is at rest and every piece ends in a state from which braking is safe, the
/// limits hold for ever, whatever the targets are. No clock, no allocation after construction.
class Planner {
  public:
    /// \param arrive_s A plan arrives at its target after this time [s], or as soon as the limits allow.
    /// \param piece_s  Length of a piece [s].
    /// \param speed    Factor on the speed limits, above 0 and at most 1.
    /// \throws std::invalid_argument when the limits or `speed` make no sense.
    Planner(const SeamLimits& limits, double arrive_s, double piece_s, double speed);

    /// \brief At rest at `q`, which must be finite, with no piece planned. A joint that starts outside its limits may
    ///        move back, but not further out. False when no plan can be made from there.
    bool reset(const JointArray& q);

    /// \brief Another factor on the speed limits. Only at rest: what moves faster would not be braked for it.
    void set_speed(double speed);

    /// \brief Plans the piece that begins where the last one ended, towards `target`; without one, braking.
    void next(const JointState* target);

    /// \brief Brakes for `elapsed_s` from the end of the current piece, and stands there without a piece.
    void brake_for(double elapsed_s);

    /// \brief The state `elapsed_s` after the beginning of the current piece, at most `piece_s`.
    JointState at(double elapsed_s) const;

    const JointArray& q_low() const { return q_low_; }
    const JointArray& q_high() const { return q_high_; }
    std::uint64_t limit_brakes() const { return limit_brakes_; }    ///< Joint plans given up for braking.
    std::uint64_t plan_failures() const { return plan_failures_; }  ///< Plans ruckig refused.

  private:
    using Trajectory = ruckig::Trajectory<kJoints>;

    bool plan_towards(const JointState& target);
    bool plan_brake(const JointState& from, Trajectory& brake);
    void brake_joints_out_of_range(const Trajectory& plan, double time_s);
    void brake_joints_too_fast();

    SeamLimits limits_;         // with the headroom for rounding taken off
    JointArray full_dq_max_{};  // the speed limits at factor 1
    double arrive_s_;
    double piece_s_;
    JointArray q_low_{};  // the range, widened to the start where that lies outside
    JointArray q_high_{};

    ruckig::Ruckig<kJoints> ruckig_;
    ruckig::InputParameter<kJoints> plan_input_;
    ruckig::InputParameter<kJoints> brake_input_;

    JointState start_{};     // at the beginning of the current piece
    JointState end_{};       // and at its end
    Trajectory plan_;        // from start_
    Trajectory brake_;       // from start_, which is brake_s_ into it
    Trajectory next_brake_;  // from end_, unless planning it failed
    double brake_s_ = 0.0;
    bool next_brake_known_ = false;
    bool planned_ = false;
    std::array<bool, kJoints> brakes_{};  // joints that brake in the current piece
    std::uint64_t limit_brakes_ = 0;
    std::uint64_t plan_failures_ = 0;
};

}  // namespace memrt
