#include "seam.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace memrt {

namespace {

// Slower than this the arm counts as resting [rad/s, rad/s²].
constexpr double kRest = 1e-6;
// Plans made in a row to catch up with a late step, before the arm is brought to rest instead.
constexpr std::int64_t kMaxCatchUp = 100;
constexpr std::int64_t kMinTimeStepNs = 1'000'000;
constexpr std::int64_t kMaxTimeStepNs = 1'000'000'000;

std::int64_t to_ns(double seconds) {
    return static_cast<std::int64_t>(std::llround(seconds * 1e9));
}
double to_s(std::int64_t ns) {
    return static_cast<double>(ns) * 1e-9;
}

std::int64_t in_range(double seconds, const char* name) {
    if (!(seconds >= 0.001 && seconds <= 1.0)) {
        throw std::invalid_argument(std::string(name) + " must be in 0.001 to 1");
    }
    return to_ns(seconds);
}

}  // namespace

const char* describe(Refusal refusal) {
    switch (refusal) {
        case Refusal::kNone:
            return "";
        case Refusal::kNotReset:
            return "not reset";
        case Refusal::kStopped:
            return "stopped";
        case Refusal::kEmpty:
            return "empty";
        case Refusal::kTooLong:
            return "more than 128 actions";
        case Refusal::kTimeStep:
            return "time step outside 1 ms to 1 s";
        case Refusal::kNonFinite:
            return "non-finite";
        case Refusal::kOutsideLimits:
            return "outside joint limits";
        case Refusal::kTooLate:
            return "too late";
        case Refusal::kTooFarAhead:
            return "too far ahead";
        case Refusal::kFull:
            return "too many waypoints";
    }
    return "unknown";
}

Seam::Seam(const SeamLimits& limits, double preview_s, double replan_s, double speed)
    : preview_ns_(in_range(preview_s, "preview_s")),
      replan_ns_(in_range(replan_s, "replan_s")),
      planner_(limits, preview_s, replan_s, speed) {
    if (preview_s < replan_s) throw std::invalid_argument("preview_s must not be below replan_s");
}

void Seam::reset(const JointArray& q, double gripper, std::int64_t t_ns) {
    if (!std::isfinite(gripper) ||
        !std::all_of(q.begin(), q.end(), [](double angle) { return std::isfinite(angle); })) {
        throw std::invalid_argument("Seam.reset: joint angles and gripper opening must be finite");
    }
    spline_.clear();
    gripper_ = std::clamp(gripper, 0.0, 1.0);
    piece_ns_ = t_ns;
    now_ns_ = t_ns;
    planned_ = false;
    stopped_ = false;
    counters_ = {};
    ready_ = planner_.reset(q);
}

Refusal Seam::check(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns) const {
    if (!ready_) return Refusal::kNotReset;
    if (stopped_) return Refusal::kStopped;
    return check_at(actions, t0_ns, dt_ns, now_ns_);
}

Refusal Seam::check_at(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns,
                       std::int64_t now_ns) const {
    if (actions.empty()) return Refusal::kEmpty;
    if (actions.size() > kMaxHorizon) return Refusal::kTooLong;
    if (dt_ns < kMinTimeStepNs || dt_ns > kMaxTimeStepNs) return Refusal::kTimeStep;
    for (const Action& action : actions) {
        if (!std::all_of(action.begin(), action.end(), [](double x) { return std::isfinite(x); })) {
            return Refusal::kNonFinite;
        }
    }
    for (const Action& action : actions) {
        for (std::size_t j = 0; j < kJoints; ++j) {
            if (action[j] < planner_.q_low()[j] - kClampRange || action[j] > planner_.q_high()[j] + kClampRange) {
                return Refusal::kOutsideLimits;
            }
        }
    }
    if (t0_ns > now_ns + kMaxAheadNs) return Refusal::kTooFarAhead;
    if (t0_ns + static_cast<std::int64_t>(actions.size() - 1) * dt_ns <= now_ns) return Refusal::kTooLate;
    return Refusal::kNone;
}

// Keeps what the spline needs from before the new chunk: the points still ahead of now and before `t0_ns`, and the one
// the arm is coming from, with its velocity. Where there is no such point, or where it lies so close to the chunk's
// first point that a cubic between them would swing, the curve begins at the current command instead.
void Seam::begin_spline(std::int64_t t0_ns, std::int64_t first_ns, std::int64_t gap_ns, JointArray& rate) {
    const std::int64_t newest_kept = std::min(first_ns - gap_ns, std::max(t0_ns - 1, now_ns_));
    std::size_t end = 0;
    while (end < spline_.size() && spline_[end].t_ns <= newest_kept) ++end;
    std::size_t past = 0;  // points at or before now
    while (past < end && spline_[past].t_ns <= now_ns_) ++past;
    const bool running = spline_.size() > 0 && spline_.back().t_ns > now_ns_;
    if (running && past > 0) {
        rate = spline_.rate(past - 1);
        spline_.keep(past - 1, end);
        return;
    }
    // Everything kept (if anything) is ahead of now, or the old future has run out: start from the command.
    const JointState now = command_state();
    Waypoint start{.t_ns = std::min(now_ns_, first_ns - gap_ns), .q = now.q, .gripper = gripper_};
    for (std::size_t j = 0; j < kJoints; ++j) start.q[j] -= now.dq[j] * to_s(now_ns_ - start.t_ns);
    rate = now.dq;
    spline_.clear();
    spline_.append(start);
}

Refusal Seam::push(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns) {
    const Refusal refusal = check(actions, t0_ns, dt_ns);
    if (refusal != Refusal::kNone) {
        ++counters_.refused;
        return refusal;
    }
    std::size_t first = 0;
    while (t0_ns + static_cast<std::int64_t>(first) * dt_ns <= now_ns_) ++first;
    const std::int64_t first_ns = t0_ns + static_cast<std::int64_t>(first) * dt_ns;

    if (spline_.size() + actions.size() + 1 > Spline::kCapacity) {
        // Count what would be kept before touching anything: a refused chunk changes nothing.
        std::size_t kept = 0;
        for (std::size_t i = 0; i < spline_.size(); ++i) kept += spline_[i].t_ns > now_ns_ && spline_[i].t_ns < t0_ns;
        if (kept + 2 + actions.size() > Spline::kCapacity) {
            ++counters_.refused;
            return Refusal::kFull;
        }
    }
    JointArray rate{};
    begin_spline(t0_ns, first_ns, dt_ns / 2, rate);
    for (std::size_t i = first; i < actions.size(); ++i) {
        Waypoint point{.t_ns = t0_ns + static_cast<std::int64_t>(i) * dt_ns, .q = {}, .gripper = 0.0};
        for (std::size_t j = 0; j < kJoints; ++j) {
            point.q[j] = std::clamp(actions[i][j], planner_.q_low()[j], planner_.q_high()[j]);
            counters_.clamped += point.q[j] != actions[i][j];
        }
        point.gripper = std::clamp(actions[i][kJoints], 0.0, 1.0);
        spline_.append(point);
    }
    spline_.solve(rate);
    if (first > 0) gripper_ = std::clamp(actions[first - 1][kJoints], 0.0, 1.0);
    counters_.late_actions += first;
    ++counters_.accepted;
    return Refusal::kNone;
}

Command Seam::step(std::int64_t t_ns) {
    advance(std::max(t_ns, now_ns_));
    const JointState state = command_state();
    return {.q = state.q, .dq = state.dq, .gripper = gripper_};
}

void Seam::stop(std::int64_t t_ns) {
    advance(std::max(t_ns, now_ns_));
    stopped_ = true;
    spline_.clear();
}

JointArray Seam::planned(std::int64_t t_ns) const {
    return spline_.size() == 0 ? command_state().q : spline_.at(t_ns).q;
}

bool Seam::at_rest() const {
    const JointState state = command_state();
    for (std::size_t j = 0; j < kJoints; ++j) {
        if (std::abs(state.dq[j]) > kRest || std::abs(state.ddq[j]) > kRest) return false;
    }
    return true;
}

double Seam::remaining_s(std::int64_t t_ns) const {
    if (spline_.size() == 0) return 0.0;
    return std::max(0.0, to_s(spline_.back().t_ns - t_ns));
}

void Seam::advance(std::int64_t t_ns) {
    for (std::size_t i = 0; i < spline_.size(); ++i) {
        if (spline_[i].t_ns > now_ns_ && spline_[i].t_ns <= t_ns) gripper_ = spline_[i].gripper;
    }
    now_ns_ = t_ns;
    if (!ready_) return;
    if (!planned_) plan();
    for (std::int64_t made = 0; t_ns - piece_ns_ >= replan_ns_; ++made) {
        piece_ns_ += replan_ns_;
        if (made == kMaxCatchUp) {
            ++counters_.gaps;
            planner_.brake_for(to_s(t_ns - piece_ns_));
            piece_ns_ = t_ns;
        }
        plan();
    }
}

void Seam::plan() {
    planned_ = true;
    if (stopped_ || spline_.size() == 0) {
        planner_.next(nullptr);
        return;
    }
    const JointState target = spline_.at(piece_ns_ + preview_ns_);
    planner_.next(&target);
}

JointState Seam::command_state() const {
    return planner_.at(to_s(now_ns_ - piece_ns_));
}

SeamCounters Seam::counters() const {
    SeamCounters counters = counters_;
    counters.limit_brakes = planner_.limit_brakes();
    counters.plan_failures = planner_.plan_failures();
    return counters;
}

}  // namespace memrt
