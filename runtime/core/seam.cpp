#include "seam.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace memrt {

namespace {

// Plans stay this little inside the limits, so that rounding never takes a command over them.
constexpr double kHeadroom = 0.999;
// A braking end this far outside the range is rounding, not a breach [rad].
constexpr double kRangeTolerance = 1e-7;
// Points at which the first piece of a plan is checked against the range.
constexpr int kRangeSamples = 4;
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
    : limits_(limits),
      preview_s_(preview_s),
      replan_s_(replan_s),
      preview_ns_(to_ns(preview_s)),
      replan_ns_(to_ns(replan_s)) {
    limits.check();
    if (!(replan_s >= 0.001 && replan_s <= 1.0)) throw std::invalid_argument("Seam: replan_s must be in 0.001 to 1");
    if (!(preview_s >= replan_s && preview_s <= 1.0)) {
        throw std::invalid_argument("Seam: preview_s must be in replan_s to 1");
    }
    if (!(speed > 0.0 && speed <= 1.0)) throw std::invalid_argument("Seam: speed must be above 0 and at most 1");
    for (std::size_t j = 0; j < kJoints; ++j) {
        // Ranges are checked at sampled points and where braking ends. In between, a joint strays by no more than it
        // can turn round in: half a sample's time at full acceleration, and the time to build up that acceleration.
        const double sample_s = replan_s / kRangeSamples;
        const double ramp_s = limits.ddq_max[j] / limits.dddq_max[j];
        const double margin = limits.ddq_max[j] * (sample_s * sample_s / 8.0 + ramp_s * ramp_s / 2.0);
        if (limits.q_max[j] - limits.q_min[j] <= 4.0 * margin) {
            throw std::invalid_argument("Seam: the joint range is smaller than the distance needed to turn round");
        }
        limits_.q_min[j] += margin;
        limits_.q_max[j] -= margin;
        limits_.dq_max[j] *= kHeadroom * speed;
        limits_.ddq_max[j] *= kHeadroom;
        limits_.dddq_max[j] *= kHeadroom;
    }
    for (auto* input : {&track_input_, &brake_input_}) {
        input->max_velocity = limits_.dq_max;
        input->max_acceleration = limits_.ddq_max;
        input->max_jerk = limits_.dddq_max;
    }
    brake_input_.control_interface = ruckig::ControlInterface::Velocity;
    brake_input_.synchronization = ruckig::Synchronization::None;
    brake_input_.target_velocity.fill(0.0);
    brake_input_.target_acceleration.fill(0.0);
}

void Seam::reset(const JointArray& q, double gripper, std::int64_t t_ns) {
    if (!std::isfinite(gripper) ||
        !std::all_of(q.begin(), q.end(), [](double angle) { return std::isfinite(angle); })) {
        throw std::invalid_argument("Seam.reset: joint angles and gripper opening must be finite");
    }
    for (std::size_t j = 0; j < kJoints; ++j) {
        q_low_[j] = std::min(limits_.q_min[j], q[j]);
        q_high_[j] = std::max(limits_.q_max[j], q[j]);
    }
    spline_.clear();
    start_ = JointState{.q = q, .dq = {}, .ddq = {}};
    end_ = start_;
    gripper_ = std::clamp(gripper, 0.0, 1.0);
    piece_ns_ = t_ns;
    now_ns_ = t_ns;
    brake_s_ = 0.0;
    planned_ = false;
    stopped_ = false;
    counters_ = {};
    ready_ = plan_brake(start_, brake_);
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
            if (action[j] < q_low_[j] - kClampRange || action[j] > q_high_[j] + kClampRange) {
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
    const JointState now = piece_at(now_ns_);
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
            point.q[j] = std::clamp(actions[i][j], q_low_[j], q_high_[j]);
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
    const JointState state = piece_at(now_ns_);
    return {.q = state.q, .dq = state.dq, .gripper = gripper_};
}

void Seam::stop(std::int64_t t_ns) {
    advance(std::max(t_ns, now_ns_));
    stopped_ = true;
    spline_.clear();
}

bool Seam::at_rest() const {
    const JointState state = piece_at(now_ns_);
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
        start_ = end_;
        piece_ns_ += replan_ns_;
        if (brake_renewed_) {
            std::swap(brake_, next_brake_);
            brake_s_ = 0.0;
        } else {
            brake_s_ += replan_s_;
        }
        if (made == kMaxCatchUp) {
            ++counters_.gaps;
            brakes_.fill(true);
            start_ = mix(to_s(t_ns - piece_ns_));
            end_ = start_;
            piece_ns_ = t_ns;
            brake_s_ = 0.0;
            ready_ = plan_brake(start_, brake_);
        }
        plan();
    }
}

bool Seam::plan_brake(const JointState& from, Trajectory& brake) {
    brake_input_.current_position = from.q;
    brake_input_.current_velocity = from.dq;
    brake_input_.current_acceleration = from.ddq;
    const ruckig::Result result = ruckig_.calculate(brake_input_, brake);
    if (result != ruckig::Result::Working) ++counters_.plan_failures;
    return result == ruckig::Result::Working;
}

// Aims at the spline's state one preview ahead, to arrive there just then; where the limits do not allow that, as soon
// as they do.
bool Seam::plan_tracking() {
    const JointState target = spline_.at(piece_ns_ + preview_ns_);
    track_input_.current_position = start_.q;
    track_input_.current_velocity = start_.dq;
    track_input_.current_acceleration = start_.ddq;
    for (std::size_t j = 0; j < kJoints; ++j) {
        // A target is reachable inside the speed limit only if the jerk that builds up its acceleration leaves room.
        const double ddq_max = std::min(limits_.ddq_max[j], std::sqrt(limits_.dddq_max[j] * limits_.dq_max[j]));
        const double ddq = std::clamp(target.ddq[j], -ddq_max, ddq_max) * kHeadroom;
        const double dq_max = (limits_.dq_max[j] - ddq * ddq / (2.0 * limits_.dddq_max[j])) * kHeadroom;
        track_input_.target_position[j] = std::clamp(target.q[j], q_low_[j], q_high_[j]);
        track_input_.target_velocity[j] = std::clamp(target.dq[j], -dq_max, dq_max);
        track_input_.target_acceleration[j] = ddq;
    }
    track_input_.minimum_duration = preview_s_;
    if (ruckig_.calculate(track_input_, track_) == ruckig::Result::Working) return true;
    // Stretching a plan to a given duration is the numerically harder half of the problem.
    track_input_.minimum_duration.reset();
    if (ruckig_.calculate(track_input_, track_) == ruckig::Result::Working) return true;
    ++counters_.plan_failures;
    return false;
}

void Seam::plan() {
    planned_ = true;
    brake_renewed_ = false;
    brakes_.fill(true);
    if (!stopped_ && spline_.size() > 0 && plan_tracking()) {
        brakes_.fill(false);
        end_ = mix(replan_s_);
        if (plan_brake(end_, next_brake_)) {
            for (int i = 1; i <= kRangeSamples; ++i) check_range(track_, replan_s_ * i / kRangeSamples);
            check_range(next_brake_, next_brake_.get_duration());
            const auto braking = std::count(brakes_.begin(), brakes_.end(), true);
            counters_.limit_brakes += static_cast<std::uint64_t>(braking);
            if (braking == 0) {
                brake_renewed_ = true;
                return;
            }
        } else {
            brakes_.fill(true);
        }
    }
    end_ = mix(replan_s_);
    // On failure the present braking plan simply goes on: it is safe to its end.
    brake_renewed_ = plan_brake(end_, next_brake_);
}

// Not get_position_extrema(): for velocity control ruckig counts the unset target position 0 among them.
void Seam::check_range(const Trajectory& plan, double time_s) {
    JointArray q;
    plan.at_time(time_s, q);
    for (std::size_t j = 0; j < kJoints; ++j) {
        brakes_[j] |= q[j] < q_low_[j] - kRangeTolerance || q[j] > q_high_[j] + kRangeTolerance;
    }
}

JointState Seam::piece_at(std::int64_t t_ns) const {
    if (!planned_) return start_;
    return mix(to_s(t_ns - piece_ns_));
}

JointState Seam::mix(double elapsed_s) const {
    JointState state;
    const bool any = std::any_of(brakes_.begin(), brakes_.end(), [](bool brake) { return brake; });
    const bool all = std::all_of(brakes_.begin(), brakes_.end(), [](bool brake) { return brake; });
    if (!all) track_.at_time(elapsed_s, state.q, state.dq, state.ddq);
    if (!any) return state;
    JointState brake;
    brake_.at_time(brake_s_ + elapsed_s, brake.q, brake.dq, brake.ddq);
    for (std::size_t j = 0; j < kJoints; ++j) {
        if (!brakes_[j]) continue;
        state.q[j] = brake.q[j];
        state.dq[j] = brake.dq[j];
        state.ddq[j] = brake.ddq[j];
    }
    return state;
}

}  // namespace memrt
