#include "seam_cases.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <optional>
#include <vector>

#include "seam.hpp"

namespace memrt {

namespace {

constexpr std::int64_t kStepNs = 1'000'000;
constexpr double kStep = 1e-3;
constexpr double kPreview = 0.060;
constexpr double kReplan = 0.010;
constexpr double kRangeShy = 1e-3;  // of a feasible spline from the ends of the range [rad]
constexpr double kTau = 2.0 * std::numbers::pi;

// Random numbers that are the same on every computer (the standard's distributions are not): splitmix64.
class Dice {
  public:
    // Mixed: the streams of unmixed neighbouring seeds would be one stream, a step apart.
    explicit Dice(std::uint64_t seed) : state_(mix(mix(seed + kGamma) + kGamma)) {}

    std::uint64_t bits() { return mix(state_ += kGamma); }
    double uniform(double low, double high) {
        return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1.0p-53;
    }
    std::int64_t integer(std::int64_t low, std::int64_t high) {
        return low + static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(high - low + 1));
    }
    bool chance(double probability) { return uniform(0.0, 1.0) < probability; }
    template <typename T, std::size_t N>
    T one_of(const std::array<T, N>& choices) {
        return choices[bits() % N];
    }

  private:
    static constexpr std::uint64_t kGamma = 0x9e3779b97f4a7c15ULL;

    static std::uint64_t mix(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }

    std::uint64_t state_;
};

// What a policy means to do: two sines per joint about a posture, begun gently or not.
struct Motion {
    JointArray centre{};
    std::array<JointArray, 2> amplitude{};
    std::array<JointArray, 2> frequency{};
    std::array<JointArray, 2> phase{};
    double gentle_s = 0.0;

    Motion(Dice& dice, const JointArray& start, double share) : centre(start) {
        const SeamLimits limits = SeamLimits::fr3();
        gentle_s = dice.chance(0.8) ? dice.uniform(0.3, 0.8) : 0.0;
        for (std::size_t k = 0; k < 2; ++k) {
            for (std::size_t j = 0; j < kJoints; ++j) {
                const double rate = dice.uniform(0.2, 2.0) * kTau;
                frequency[k][j] = rate;
                // So that both sines and their beginning use about `share` of the speed and of the acceleration limit.
                double most = std::min(limits.dq_max[j] / rate, limits.ddq_max[j] / (rate * rate));
                if (gentle_s > 0.0) most = std::min(most, limits.ddq_max[j] * gentle_s * gentle_s / 12.0);
                amplitude[k][j] = dice.uniform(0.0, 0.5) * share * most;
                phase[k][j] = dice.uniform(0.0, kTau);
            }
        }
    }

    double at(std::size_t joint, double t) const {
        const double s = gentle_s > 0.0 ? std::clamp(t / gentle_s, 0.0, 1.0) : 1.0;
        const double envelope = s * s * s * (10.0 + s * (-15.0 + 6.0 * s));
        double q = centre[joint];
        for (std::size_t k = 0; k < 2; ++k) {
            q += envelope * amplitude[k][joint] *
                 (std::sin(frequency[k][joint] * t + phase[k][joint]) - std::sin(phase[k][joint]));
        }
        return q;
    }
};

// Differences of the commands, with the arm at rest before the first.
class Oracle {
  public:
    Oracle(const SeamLimits& limits, double speed, const JointArray& start) : limits_(limits), speed_(speed) {
        last_.fill(start);
    }

    // True when this command breaks a limit.
    bool check(const JointArray& q, SeamReport& report) {
        bool broken = false;
        for (std::size_t j = 0; j < kJoints; ++j) {
            const double outside = std::max(limits_.q_min[j] - q[j], q[j] - limits_.q_max[j]);
            report.outside = std::max(report.outside, outside);
            broken |= !(outside <= kOutsideTolerance);
            const double first = q[j] - last_[0][j];
            const double second = first - (last_[0][j] - last_[1][j]);
            const double third = second - (last_[0][j] - 2.0 * last_[1][j] + last_[2][j]);
            const std::array<double, 3> used{
                std::abs(first) / (limits_.dq_max[j] * speed_ * kStep),
                std::abs(second) / (limits_.ddq_max[j] * kStep * kStep),
                std::abs(third) / (limits_.dddq_max[j] * kStep * kStep * kStep),
            };
            for (std::size_t n = 0; n < used.size(); ++n) {
                report.used[n] = std::max(report.used[n], used[n]);
                broken |= !(used[n] <= 1.0);  // also when it is not a number
            }
        }
        last_ = {q, last_[0], last_[1]};
        return broken;
    }

  private:
    SeamLimits limits_;
    double speed_;
    std::array<JointArray, 3> last_;  // newest first
};

// One chunk from its push to the next: is its spline feasible, and how far is the arm from it?
class Tracking {
  public:
    Tracking(const Seam& seam, const SeamLimits& limits, double speed, bool clamped, std::int64_t now_ns,
             const Command& command)
        : seam_(seam), limits_(limits), speed_(speed), feasible_(!clamped), from_ns_(now_ns) {
        const JointState begin = seam.spline().at(now_ns);
        double join_s = 0.0;
        for (std::size_t j = 0; j < kJoints; ++j) {
            // Half the acceleration: up and down again for the distance, once more for the difference of speeds.
            const double ddq = limits.ddq_max[j] / 2.0;
            const double away = std::abs(command.q[j] - begin.q[j]);
            const double faster = std::abs(command.dq[j] - begin.dq[j]);
            join_s = std::max(join_s, 2.0 * std::sqrt(away / ddq) + 2.0 * faster / ddq);
        }
        from_ns_ += static_cast<std::int64_t>((join_s + kPreview) * 1e9);
        ahead_ = begin;
        for (std::int64_t t = now_ns + kStepNs; t <= now_ns + kPreviewNs; t += kStepNs) look_at(t);
    }

    void tick(std::int64_t t_ns, const JointArray& q) {
        look_at(t_ns + kPreviewNs);
        if (t_ns < from_ns_) return;
        const JointState wanted = seam_.spline().at(t_ns);
        for (std::size_t j = 0; j < kJoints; ++j) squares_[j] += (q[j] - wanted.q[j]) * (q[j] - wanted.q[j]);
        ++ticks_;
    }

    void finish(std::uint64_t number, SeamReport& report) const {
        if (!feasible_) {
            ++report.infeasible;
        } else if (ticks_ == 0) {
            ++report.too_short;
        } else {
            const double worst = *std::max_element(squares_.begin(), squares_.end());
            const double rms = std::sqrt(worst / static_cast<double>(ticks_));
            report.tracking_rms.push_back(rms);
            if (rms <= report.worst_rms) return;
            report.worst_rms = rms;
            report.worst_tracked = number;
        }
    }

  private:
    static constexpr std::int64_t kPreviewNs = 60 * kStepNs;

    void look_at(std::int64_t t_ns) {
        const JointState next = seam_.spline().at(t_ns);
        for (std::size_t j = 0; j < kJoints; ++j) {
            feasible_ &= next.q[j] >= limits_.q_min[j] + kRangeShy && next.q[j] <= limits_.q_max[j] - kRangeShy &&
                         std::abs(next.dq[j]) <= kFeasibleShare * limits_.dq_max[j] * speed_ &&
                         std::abs(next.ddq[j]) <= kFeasibleShare * limits_.ddq_max[j] &&
                         std::abs(next.ddq[j] - ahead_.ddq[j]) <= kFeasibleShare * limits_.dddq_max[j] * kStep;
        }
        ahead_ = next;
    }

    const Seam& seam_;
    const SeamLimits& limits_;
    double speed_;
    bool feasible_;
    std::int64_t from_ns_;
    JointState ahead_;
    JointArray squares_{};
    std::int64_t ticks_ = 0;
};

using Chunk = std::vector<Action>;

void keep_acceptable(Chunk& chunk, const SeamLimits& limits) {
    constexpr double kOver = 0.19;  // clamped, not refused
    for (Action& action : chunk) {
        for (std::size_t j = 0; j < kJoints; ++j) {
            action[j] = std::clamp(action[j], limits.q_min[j] - kOver, limits.q_max[j] + kOver);
        }
    }
}

// What a policy would send: its motion from `t0_s` on, off by a jump, with noise on every action.
Chunk policy_chunk(Dice& dice, const Motion& motion, std::size_t horizon, double t0_s, double dt_s) {
    const double jump = dice.one_of<double, 8>({0.0, 0.0, 0.0, 0.0, 0.001, 0.01, 0.05, 0.2});
    const double noise = dice.one_of<double, 4>({0.0, 0.0, 0.0, 0.01});
    JointArray off;
    for (double& joint : off) joint = dice.uniform(-jump, jump);
    Chunk chunk(horizon);
    for (std::size_t i = 0; i < horizon; ++i) {
        for (std::size_t j = 0; j < kJoints; ++j) {
            chunk[i][j] = motion.at(j, t0_s + static_cast<double>(i) * dt_s) + off[j] + dice.uniform(-noise, noise);
        }
        chunk[i][kJoints] = dice.uniform(0.0, 1.0);
    }
    return chunk;
}

// What no policy should send: anywhere, corners of the range, a random walk, a straight line to anywhere.
Chunk wild_chunk(Dice& dice, const SeamLimits& limits, std::size_t horizon, const JointArray& q) {
    const auto kind = dice.integer(0, 3);
    Chunk chunk(horizon);
    JointArray goal;
    JointArray walk = q;
    for (std::size_t j = 0; j < kJoints; ++j) {
        if (kind == 1) {
            goal[j] = dice.chance(0.5) ? limits.q_min[j] : limits.q_max[j];
        } else {
            goal[j] = dice.uniform(limits.q_min[j] - 0.15, limits.q_max[j] + 0.15);
        }
    }
    for (std::size_t i = 0; i < horizon; ++i) {
        for (std::size_t j = 0; j < kJoints; ++j) {
            const double share = static_cast<double>(i + 1) / static_cast<double>(horizon);
            walk[j] += dice.uniform(-0.05, 0.05);
            if (kind == 0) {
                chunk[i][j] = dice.uniform(limits.q_min[j] - 0.15, limits.q_max[j] + 0.15);
            } else if (kind == 1) {
                chunk[i][j] = goal[j];
            } else {
                chunk[i][j] = kind == 2 ? walk[j] : q[j] + share * (goal[j] - q[j]);
            }
        }
        chunk[i][kJoints] = dice.uniform(0.0, 1.0);
    }
    return chunk;
}

}  // namespace

void SeamReport::merge(const SeamReport& other) {
    cases += other.cases;
    commands += other.commands;
    chunks += other.chunks;
    refused += other.refused;
    dropouts += other.dropouts;
    stops += other.stops;
    limit_brakes += other.limit_brakes;
    plan_failures += other.plan_failures;
    for (std::size_t n = 0; n < used.size(); ++n) used[n] = std::max(used[n], other.used[n]);
    outside = std::max(outside, other.outside);
    violations += other.violations;
    first_violation = std::min(first_violation, other.first_violation);
    tracking_rms.insert(tracking_rms.end(), other.tracking_rms.begin(), other.tracking_rms.end());
    if (other.worst_rms > worst_rms) {
        worst_rms = other.worst_rms;
        worst_tracked = other.worst_tracked;
    }
    infeasible += other.infeasible;
    too_short += other.too_short;
}

void play_seam_case(std::uint64_t number, SeamReport& report) {
    Dice dice(number);
    const SeamLimits limits = SeamLimits::fr3();
    const double speed = dice.one_of<double, 5>({1.0, 1.0, 1.0, 0.5, 0.2});
    const bool wild = dice.chance(0.3);
    JointArray start;
    for (std::size_t j = 0; j < kJoints; ++j) {
        const double away = wild ? 0.0 : 0.3;
        start[j] = dice.uniform(limits.q_min[j] + away, limits.q_max[j] - away);
        if (wild && dice.chance(0.1)) start[j] = dice.chance(0.5) ? limits.q_min[j] : limits.q_max[j];
    }
    const Motion motion(dice, start, (dice.chance(0.75) ? dice.uniform(0.05, 1.0) : dice.uniform(1.0, 4.0)) * speed);
    const std::int64_t dt_ms = dice.one_of<std::int64_t, 4>({10, 20, 33, 50});
    const std::int64_t ticks = dice.integer(500, 1000);

    Seam seam(limits, kPreview, kReplan, speed);
    seam.reset(start, 1.0, 0);
    Command command{.q = start, .dq = {}, .gripper = 1.0};
    Oracle oracle(limits, speed, start);
    std::optional<Tracking> tracking;
    std::int64_t next_push = dice.integer(0, 60);
    std::int64_t resume_at = -1;
    bool broken = false;

    for (std::int64_t tick = 0; tick < ticks; ++tick) {
        const std::int64_t now_ns = tick * kStepNs;
        if (tick == next_push) {
            const std::int64_t horizon = dice.integer(2, 50);
            const std::int64_t late_ms = wild ? dice.integer(-250, 250) : dice.integer(0, 150);
            // Most policies ask again before the chunk slows down to rest at its end; some let it run out.
            const std::int64_t in_time = horizon - (late_ms + 60) / dt_ms - 5;
            const std::int64_t execute = dice.integer(1, dice.chance(0.8) && in_time > 0 ? in_time : horizon);
            next_push += std::max<std::int64_t>(10, execute * dt_ms + dice.integer(-5, 5));
            const std::int64_t t0_ms = tick - late_ms + dt_ms;
            if (dice.chance(0.15)) {
                ++report.dropouts;
            } else {
                Chunk chunk = wild ? wild_chunk(dice, limits, static_cast<std::size_t>(horizon), command.q)
                                   : policy_chunk(dice, motion, static_cast<std::size_t>(horizon),
                                                  static_cast<double>(t0_ms) * 1e-3, static_cast<double>(dt_ms) * 1e-3);
                keep_acceptable(chunk, limits);
                const std::uint64_t clamped = seam.counters().clamped;
                if (seam.push(chunk, t0_ms * kStepNs, dt_ms * kStepNs) == Refusal::kNone) {
                    ++report.chunks;
                    if (tracking) tracking->finish(number, report);
                    tracking.emplace(seam, limits, speed, seam.counters().clamped > clamped, now_ns, command);
                } else {
                    ++report.refused;
                }
            }
        }
        if (!seam.stopped() && dice.chance(2e-4)) {
            ++report.stops;
            seam.stop(now_ns);
            tracking.reset();  // the spline is gone
            resume_at = tick + dice.integer(1, 300);
        }
        if (tick == resume_at) seam.resume();
        command = seam.step(now_ns);
        broken |= oracle.check(command.q, report);
        if (tracking) tracking->tick(now_ns, command.q);
    }
    if (tracking) tracking->finish(number, report);
    ++report.cases;
    report.commands += static_cast<std::uint64_t>(ticks);
    report.limit_brakes += seam.counters().limit_brakes;
    report.plan_failures += seam.counters().plan_failures;
    if (!broken) return;
    ++report.violations;
    report.first_violation = std::min(report.first_violation, number);
}

}  // namespace memrt
