#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

namespace memrt {

/// \brief What an oracle that knows nothing of the seam's plans says about its commands, over many random cases.
struct SeamReport {
    static constexpr std::uint64_t kNoCase = std::numeric_limits<std::uint64_t>::max();

    std::uint64_t cases = 0;
    std::uint64_t commands = 0;
    std::uint64_t chunks = 0;         ///< Pushed and taken.
    std::uint64_t refused = 0;        ///< Pushed and refused.
    std::uint64_t dropouts = 0;       ///< Never pushed.
    std::uint64_t stops = 0;          ///< Stopped and resumed.
    std::uint64_t limit_brakes = 0;   ///< See SeamCounters.
    std::uint64_t plan_failures = 0;  ///< See SeamCounters.

    /// \brief Largest n-th difference of the commands over step^n, as a share of the limit: speed, acceleration, jerk.
    ///        By the mean value theorem a share above 1 proves a breach.
    std::array<double, 3> used{};
    double outside = -std::numeric_limits<double>::infinity();  ///< Furthest command out of its range [rad].
    std::uint64_t violations = 0;                               ///< Cases with a breach.
    std::uint64_t first_violation = kNoCase;

    /// \brief Chunks whose tracking was measured: rms error of the worst joint [rad], one number each.
    std::vector<double> tracking_rms;
    double worst_rms = 0.0;
    std::uint64_t worst_tracked = kNoCase;  ///< The case of the largest of them.
    std::uint64_t infeasible = 0;           ///< Chunks whose spline itself asks for too much.
    std::uint64_t too_short = 0;            ///< Feasible chunks replaced before the arm could have joined them.

    /// \brief Adds what was found elsewhere.
    void merge(const SeamReport& other);
};

/// \brief A command outside its range by this much is rounding, where a joint starts on its limit [rad].
inline constexpr double kOutsideTolerance = 1e-6;
/// \brief A spline is feasible while it uses at most this share of the speed, acceleration and jerk limits.
inline constexpr double kFeasibleShare = 0.8;

/// \brief Plays case number `number` on a virtual clock: 0.5 to 1 s of commands, one per millisecond, of an FR3.
///
/// A case is drawn from its number alone: the start, the speed factor, chunks of many kinds with their time steps,
/// horizons, delays (whole or in part too late), jumps at the seam and dropouts; some stop and resume in between.
///
/// Tracking is measured per chunk, from when an arm with half its acceleration could have joined the chunk's spline to
/// when the next chunk comes, and only where the spline is feasible: sampled at 1 ms from the push to the preview after
/// that time, every speed, acceleration and change of acceleration lies within kFeasibleShare of its limit and no
/// target had to be clamped.
void play_seam_case(std::uint64_t number, SeamReport& report);

}  // namespace memrt
