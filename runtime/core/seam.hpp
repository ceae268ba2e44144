#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "limits.hpp"
#include "planner.hpp"
#include "spline.hpp"

namespace memrt {

inline constexpr std::size_t kActionDim = kJoints + 1;  ///< Seven joint targets [rad], then the gripper opening (0..1).

/// \brief One row of an action chunk.
using Action = std::array<double, kActionDim>;

/// \brief What the arm is to do at one instant.
struct Command {
    JointArray q{};        ///< Joint angles [rad].
    JointArray dq{};       ///< Joint velocities [rad/s].
    double gripper = 0.0;  ///< Gripper opening, 0 closed to 1 open.
};

/// \brief Why a chunk was refused; `kNone` when it was taken.
enum class Refusal : std::uint8_t {
    kNone,
    kNotReset,
    kStopped,
    kEmpty,
    kTooLong,
    kTimeStep,
    kNonFinite,
    kOutsideLimits,
    kTooLate,
    kTooFarAhead,
    kFull,
};

/// \brief The refusal in words; empty for `kNone`.
const char* describe(Refusal refusal);

/// \brief What happened since the last reset. Nothing here is an error by itself.
struct SeamCounters {
    std::uint64_t accepted = 0;      ///< Chunks taken.
    std::uint64_t refused = 0;       ///< Chunks refused.
    std::uint64_t clamped = 0;       ///< Joint targets moved to the nearest joint limit.
    std::uint64_t late_actions = 0;  ///< Actions dropped because their time had passed.
    std::uint64_t limit_brakes = 0;  ///< Joint plans replaced by braking, because they could not have stopped in range.
    std::uint64_t plan_failures = 0;  ///< Plans the trajectory generator refused; the arm braked meanwhile.
    std::uint64_t gaps = 0;           ///< Steps so far apart that the arm was brought to rest in between.
};

/// \brief Turns timed action chunks into joint commands that respect position, speed, acceleration and jerk limits.
///
/// The newest chunk becomes waypoints of a C2 cubic spline. Every `replan_s` a Planner plans from the current command
/// to the spline's state `preview_s` ahead, to arrive there just then (or as soon as the limits allow), and only the
/// first `replan_s` of that plan is followed. The Planner keeps the limits, whatever is pushed and whenever.
///
/// Pure: no clock, no thread, no allocation after construction; commands depend only on what was pushed and on the
/// times given, not on how often step() is called. Not thread-safe: one owner.
class Seam {
  public:
    static constexpr std::size_t kMaxHorizon = 128;  ///< Actions per chunk.
    static constexpr double kClampRange = 0.2;       ///< Further outside its range [rad], a target is refused.
    static constexpr std::int64_t kMaxAheadNs = 10'000'000'000;  ///< A chunk may begin this long after now.

    /// \param limits    Limits of the arm.
    /// \param preview_s How far ahead of the command the spline is sampled [s].
    /// \param replan_s  How often a new plan is made [s]; at most `preview_s`.
    /// \param speed     Factor on the speed limits, above 0 and at most 1.
    /// \throws std::invalid_argument naming the argument that is out of range.
    Seam(const SeamLimits& limits, double preview_s, double replan_s, double speed);

    /// \brief Puts the arm at rest at `q` at time `t_ns` and forgets everything pushed. `q` must be finite.
    ///
    /// A joint that starts outside its limits may move back, but not further out.
    void reset(const JointArray& q, double gripper, std::int64_t t_ns);

    /// \brief Whether a chunk would be refused now, and why. Changes nothing.
    Refusal check(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns) const;

    /// \brief The checks that need no present state but the time and the range set by reset(): see check().
    Refusal check_at(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns,
                     std::int64_t now_ns) const;

    /// \brief Replaces everything from `t0_ns` on by `actions`; action i is meant for `t0_ns + i * dt_ns`.
    ///
    /// Actions whose time has passed are dropped. Joint targets up to `kClampRange` outside the limits are clamped.
    /// A refused chunk changes nothing.
    Refusal push(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns);

    /// \brief The command for time `t_ns`. Times must not decrease; an earlier one is taken as the latest seen.
    Command step(std::int64_t t_ns);

    /// \brief Where the arm is to be at `t_ns` by what was pushed [rad]: on the curve, also while the limits keep the
    ///        command behind it. Without a curve (before the first chunk, after a stop): where the command is.
    JointArray planned(std::int64_t t_ns) const;

    /// \brief Drops the future and brakes as hard as the limits allow, from the next plan (within `replan_s`) on.
    ///
    /// Chunks are refused until resume().
    void stop(std::int64_t t_ns);

    /// \brief Ends a stop: chunks are accepted again, the arm stays where it is until one comes.
    void resume() { stopped_ = false; }

    bool stopped() const { return stopped_; }

    /// \brief Another factor on the speed limits, above 0 and at most 1. Only while stopped and at rest.
    /// \throws std::invalid_argument for any other factor.
    void set_speed(double speed) { planner_.set_speed(speed); }

    /// \brief Whether the command of the last step has come to rest.
    bool at_rest() const;

    /// \brief How much of the pushed future lies after `t_ns` [s].
    double remaining_s(std::int64_t t_ns) const;

    SeamCounters counters() const;

    /// \brief The curve the arm is to follow from now on; empty after a stop.
    const Spline& spline() const { return spline_; }

  private:
    void advance(std::int64_t t_ns);
    void plan();
    JointState command_state() const;
    void begin_spline(std::int64_t t0_ns, std::int64_t first_ns, std::int64_t gap_ns, JointArray& rate);

    std::int64_t preview_ns_;
    std::int64_t replan_ns_;
    Planner planner_;
    Spline spline_;
    std::int64_t piece_ns_ = 0;  // when the planner's current piece began
    std::int64_t now_ns_ = 0;
    double gripper_ = 0.0;
    bool ready_ = false;
    bool planned_ = false;
    bool stopped_ = false;
    SeamCounters counters_;
};

}  // namespace memrt
