#include "planner.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace memrt {

namespace {

// Plans stay this little inside the limits, so that rounding never takes a command over them.
constexpr double kHeadroom = 0.999;
// A position this far outside the range is rounding, not a breach [rad].
constexpr double kRangeTolerance = 1e-7;
// A speed over its limit by this share is rounding: kHeadroom covers it.
constexpr double kSpeedTolerance = 1e-6;
// Points at which a piece is checked against the range.
constexpr int kRangeSamples = 4;

bool any(const std::array<bool, kJoints>& flags) {
    return std::any_of(flags.begin(), flags.end(), [](bool flag) { return flag; });
}

bool all(const std::array<bool, kJoints>& flags) {
    return std::all_of(flags.begin(), flags.end(), [](bool flag) { return flag; });
}

}  // namespace

Planner::Planner(const SeamLimits& limits, double arrive_s, double piece_s, double speed)
    : limits_(limits), arrive_s_(arrive_s), piece_s_(piece_s) {
    limits.check();
    for (std::size_t j = 0; j < kJoints; ++j) {
        // Ranges are checked at sampled points and where braking ends. In between, a joint strays by no more than it
        // can turn round in: half a sample's time at full acceleration, and the time to build up that acceleration.
        const double sample_s = piece_s / kRangeSamples;
        const double ramp_s = limits.ddq_max[j] / limits.dddq_max[j];
        const double margin = limits.ddq_max[j] * (sample_s * sample_s / 8.0 + ramp_s * ramp_s / 2.0);
        if (limits.q_max[j] - limits.q_min[j] <= 4.0 * margin) {
            throw std::invalid_argument("SeamLimits: a joint's range is smaller than the distance it needs to turn");
        }
        limits_.q_min[j] += margin;
        limits_.q_max[j] -= margin;
        full_dq_max_[j] = limits_.dq_max[j] * kHeadroom;
        limits_.ddq_max[j] *= kHeadroom;
        limits_.dddq_max[j] *= kHeadroom;
    }
    for (auto* input : {&plan_input_, &brake_input_}) {
        input->max_acceleration = limits_.ddq_max;
        input->max_jerk = limits_.dddq_max;
    }
    brake_input_.control_interface = ruckig::ControlInterface::Velocity;
    brake_input_.synchronization = ruckig::Synchronization::None;
    brake_input_.target_velocity.fill(0.0);
    brake_input_.target_acceleration.fill(0.0);
    set_speed(speed);
}

void Planner::set_speed(double speed) {
    if (!(speed > 0.0 && speed <= 1.0)) throw std::invalid_argument("speed must be above 0 and at most 1");
    for (std::size_t j = 0; j < kJoints; ++j) limits_.dq_max[j] = full_dq_max_[j] * speed;
    plan_input_.max_velocity = limits_.dq_max;
    brake_input_.max_velocity = limits_.dq_max;
}

bool Planner::reset(const JointArray& q) {
    for (std::size_t j = 0; j < kJoints; ++j) {
        q_low_[j] = std::min(limits_.q_min[j], q[j]);
        q_high_[j] = std::max(limits_.q_max[j], q[j]);
    }
    limit_brakes_ = 0;
    plan_failures_ = 0;
    end_ = JointState{.q = q, .dq = {}, .ddq = {}};
    planned_ = false;
    next_brake_known_ = plan_brake(end_, next_brake_);
    return next_brake_known_;
}

void Planner::next(const JointState* target) {
    if (next_brake_known_) {
        std::swap(brake_, next_brake_);
        brake_s_ = 0.0;
    } else {
        // The braking plan of before the last piece goes on: it is safe to its end, and the joints were on it.
        brake_s_ += piece_s_;
    }
    start_ = end_;
    planned_ = true;
    if (target != nullptr && plan_towards(*target)) {
        brakes_.fill(false);
        end_ = at(piece_s_);
        if (plan_brake(end_, next_brake_)) {
            for (int i = 1; i <= kRangeSamples; ++i) brake_joints_out_of_range(plan_, piece_s_ * i / kRangeSamples);
            brake_joints_out_of_range(next_brake_, next_brake_.get_duration());
            brake_joints_too_fast();
            if (!any(brakes_)) {
                next_brake_known_ = true;
                return;
            }
            limit_brakes_ += static_cast<std::uint64_t>(std::count(brakes_.begin(), brakes_.end(), true));
        } else {
            brakes_.fill(true);
        }
    } else {
        brakes_.fill(true);
    }
    end_ = at(piece_s_);
    next_brake_known_ = plan_brake(end_, next_brake_);
    if (!next_brake_known_ && !all(brakes_)) {
        brakes_.fill(true);
        end_ = at(piece_s_);
    }
}

void Planner::brake_for(double elapsed_s) {
    next(nullptr);
    end_ = at(elapsed_s);
    planned_ = false;
    next_brake_known_ = plan_brake(end_, next_brake_);
    // Otherwise next() goes on along the same plan, from where this left it.
    if (!next_brake_known_) brake_s_ += elapsed_s - piece_s_;
}

// To arrive just then; where the limits do not allow that, as soon as they do.
bool Planner::plan_towards(const JointState& target) {
    plan_input_.current_position = start_.q;
    plan_input_.current_velocity = start_.dq;
    plan_input_.current_acceleration = start_.ddq;
    for (std::size_t j = 0; j < kJoints; ++j) {
        // A target is reachable inside the speed limit only if the jerk that builds up its acceleration leaves room.
        const double ddq_max = std::min(limits_.ddq_max[j], std::sqrt(limits_.dddq_max[j] * limits_.dq_max[j]));
        const double ddq = std::clamp(target.ddq[j], -ddq_max, ddq_max) * kHeadroom;
        const double dq_max = (limits_.dq_max[j] - ddq * ddq / (2.0 * limits_.dddq_max[j])) * kHeadroom;
        plan_input_.target_position[j] = std::clamp(target.q[j], q_low_[j], q_high_[j]);
        plan_input_.target_velocity[j] = std::clamp(target.dq[j], -dq_max, dq_max);
        plan_input_.target_acceleration[j] = ddq;
    }
    plan_input_.minimum_duration = arrive_s_;
    if (ruckig_.calculate(plan_input_, plan_) == ruckig::Result::Working) return true;
    // Stretching a plan to a given duration is the numerically harder half of the problem.
    plan_input_.minimum_duration.reset();
    if (ruckig_.calculate(plan_input_, plan_) == ruckig::Result::Working) return true;
    ++plan_failures_;
    return false;
}

bool Planner::plan_brake(const JointState& from, Trajectory& brake) {
    brake_input_.current_position = from.q;
    brake_input_.current_velocity = from.dq;
    brake_input_.current_acceleration = from.ddq;
    const bool planned = ruckig_.calculate(brake_input_, brake) == ruckig::Result::Working;
    if (!planned) ++plan_failures_;
    return planned;
}

// Not get_position_extrema(): for velocity control ruckig counts the unset target position 0 among them.
void Planner::brake_joints_out_of_range(const Trajectory& plan, double time_s) {
    JointArray q;
    plan.at_time(time_s, q);
    for (std::size_t j = 0; j < kJoints; ++j) {
        brakes_[j] |= q[j] < q_low_[j] - kRangeTolerance || q[j] > q_high_[j] + kRangeTolerance;
    }
}

// ruckig bounds the speed from the third of a profile's seven phases on, so a plan may begin with a swing over the
// limit. Looked at are the piece's own extremes, and the speed that braking from its end still builds up.
void Planner::brake_joints_too_fast() {
    const auto profiles = plan_.get_profiles()[0];
    for (std::size_t j = 0; j < kJoints; ++j) {
        const ruckig::Profile& profile = profiles[j];
        double left = piece_s_;
        double dq = start_.dq[j];
        double ddq = start_.ddq[j];
        double fastest = std::abs(dq);
        const auto follow = [&](double duration, double jerk) {
            const double t = std::min(duration, left);
            const double turns_at = -ddq / jerk;  // no finite number without jerk, and then it does not turn
            if (turns_at > 0.0 && turns_at < t) fastest = std::max(fastest, std::abs(dq + turns_at * ddq / 2.0));
            dq += t * (ddq + t * jerk / 2.0);
            ddq += t * jerk;
            fastest = std::max(fastest, std::abs(dq));
            left -= t;
        };
        if (profile.brake.duration > 0.0) {
            for (std::size_t i = 0; i < profile.brake.t.size(); ++i) follow(profile.brake.t[i], profile.brake.j[i]);
        }
        for (std::size_t i = 0; i < profile.t.size(); ++i) follow(profile.t[i], profile.j[i]);
        follow(left, 0.0);  // beyond its end a plan keeps its acceleration
        if (dq * ddq > 0.0) fastest = std::max(fastest, std::abs(dq) + ddq * ddq / (2.0 * limits_.dddq_max[j]));
        brakes_[j] |= fastest > limits_.dq_max[j] * (1.0 + kSpeedTolerance);
    }
}

JointState Planner::at(double elapsed_s) const {
    if (!planned_) return end_;
    JointState state;
    if (!all(brakes_)) plan_.at_time(elapsed_s, state.q, state.dq, state.ddq);
    if (!any(brakes_)) return state;
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
