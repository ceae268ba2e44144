#include "control_loop.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "clock.hpp"

namespace memrt {

namespace {

// Above everything a desktop runs at, below the kernel's own threads at 99.
constexpr int kPriority = 80;
constexpr std::int64_t kAcknowledgeNs = 100'000'000;

std::int64_t period_of(double rate_hz) {
    if (!(rate_hz >= 1.0 && rate_hz <= 4000.0)) {
        throw std::invalid_argument("ControlLoop: rate_hz must be in 1 to 4000");
    }
    return std::llround(1e9 / rate_hz);
}

}  // namespace

ControlLoop::ControlLoop(const SeamLimits& limits, double rate_hz, double preview_s, double replan_s, double speed,
                         std::shared_ptr<TraceRing> trace)
    : seam_(limits, preview_s, replan_s, speed),
      period_ns_(period_of(rate_hz)),
      trace_(std::move(trace)),
      speed_(speed),
      speed_wanted_(speed) {}

ControlLoop::~ControlLoop() {
    shutdown();
}

void ControlLoop::start(const JointArray& q, double gripper) {
    if (running()) throw std::runtime_error("ControlLoop.start: already running");
    const std::int64_t now = now_ns();
    seam_.reset(q, gripper, now);
    speed_ = speed_wanted_;
    seam_.set_speed(speed_);
    inbox_.take();  // a chunk left over from before has no meaning any more
    lateness_.clear();
    work_.clear();
    rejected_ = 0;
    stop_wanted_ = false;
    stopped_ = false;
    quit_ = false;
    ControlStatus status;
    status.command = seam_.step(now);
    status.t_ns = now;
    status_.store(status);
    curve_.store(seam_.spline());
    running_.store(true, std::memory_order_release);  // partner: the acquire in running()
    thread_ = std::thread([this] { run(); });
}

void ControlLoop::shutdown() {
    quit_ = true;
    if (thread_.joinable()) thread_.join();
    running_.store(false, std::memory_order_release);  // partner: the acquire in running()
}

Refusal ControlLoop::push(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns,
                          std::int64_t revision) {
    Refusal refusal = Refusal::kNone;
    if (!running()) {
        refusal = Refusal::kNotReset;
    } else if (stop_wanted_.load(std::memory_order_acquire)) {
        // Partner: the store in stop(). A chunk that slips past it meets the stopped seam and is refused there.
        refusal = Refusal::kStopped;
    } else {
        refusal = seam_.check_at(actions, t0_ns, dt_ns, now_ns());
    }
    if (refusal == Refusal::kNone) {
        inbox_.put(actions, t0_ns, dt_ns, revision);
    } else {
        rejected_.fetch_add(1, std::memory_order_relaxed);
    }
    return refusal;
}

JointArray ControlLoop::planned(std::int64_t t_ns) const {
    const Spline curve = curve_.load();
    return curve.size() == 0 ? status_.load().command.q : curve.at(t_ns).q;
}

bool ControlLoop::stop() {
    stop_wanted_.store(true, std::memory_order_release);  // partners: the acquires in push() and tick()
    return wait_for_mode(true);
}

void ControlLoop::set_speed(double speed) {
    if (!(speed > 0.0 && speed <= 1.0)) {
        throw std::invalid_argument("ControlLoop.set_speed: speed must be above 0 and at most 1");
    }
    speed_wanted_.store(speed, std::memory_order_relaxed);  // resume()'s release carries it to tick()'s acquire
}

bool ControlLoop::resume() {
    stop_wanted_.store(false, std::memory_order_release);  // partners: as in stop()
    return wait_for_mode(false);
}

bool ControlLoop::wait_for_mode(bool stopped) {
    if (!running()) return stopped;  // nothing moves when nothing runs
    const std::int64_t give_up = now_ns() + std::max(kAcknowledgeNs, 2 * period_ns_);
    // Acquire, partner of the release store in run(): the status read afterwards is at least as new.
    while (stopped_.load(std::memory_order_acquire) != stopped) {
        if (now_ns() > give_up) return false;
        sleep_until(now_ns() + std::min<std::int64_t>(period_ns_, 1'000'000));
    }
    return true;
}

void ControlLoop::record(ControlEvent event, std::int64_t t_ns, std::int64_t value, std::int64_t duration_ns) {
    if (trace_) trace_->record({static_cast<std::int32_t>(event), this_thread(), t_ns, duration_ns, value});
}

void ControlLoop::run() {
    pthread_setname_np(pthread_self(), "memrt-control");
    const sched_param priority{.sched_priority = kPriority};
    realtime_ = pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) == 0;
    // Without SCHED_FIFO the kernel may group wake-ups within 50 µs; ask it not to.
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);

    ControlStatus status = status_.load();
    std::int64_t deadline = status.t_ns + period_ns_;
    while (!quit_.load(std::memory_order_relaxed)) {
        sleep_until(deadline);
        const std::int64_t woke = now_ns();
        lateness_.add(woke - deadline);
        tick(deadline, status);
        status_.store(status);
        // Release: partner of the acquire in wait_for_mode(); comes after the status, so that who waits sees it.
        stopped_.store(status.stopped, std::memory_order_release);
        const std::int64_t done = now_ns();
        work_.add(done - woke);
        deadline += period_ns_;
        if (deadline <= done) {
            const std::int64_t missed = (done - deadline) / period_ns_ + 1;
            record(ControlEvent::kMissedTicks, deadline, missed, missed * period_ns_);
            status.missed_ticks += static_cast<std::uint64_t>(missed);
            deadline += missed * period_ns_;
        }
    }
}

// A stop comes before the inbox and a resume after it, so that no chunk from before a stop outlives it.
void ControlLoop::tick(std::int64_t deadline_ns, ControlStatus& status) {
    const bool stop_wanted = stop_wanted_.load(std::memory_order_acquire);  // partner: stop(), resume()
    if (stop_wanted && !seam_.stopped()) {
        seam_.stop(deadline_ns);
        curve_.store(seam_.spline());
        record(ControlEvent::kStop, deadline_ns);
    }
    const double speed_wanted = speed_wanted_.load(std::memory_order_relaxed);
    if (speed_wanted != speed_ && seam_.stopped() && seam_.at_rest()) {
        seam_.set_speed(speed_wanted);
        speed_ = speed_wanted;
    }
    if (const TimedChunk* chunk = inbox_.take(); chunk != nullptr) {
        const Refusal refusal = seam_.push(chunk->rows(), chunk->t0_ns, chunk->dt_ns);
        if (refusal == Refusal::kNone) {
            status.revision = chunk->revision;
            curve_.store(seam_.spline());
            record(ControlEvent::kChunkTaken, deadline_ns, chunk->revision);
        } else {
            record(ControlEvent::kChunkRefused, deadline_ns, static_cast<std::int64_t>(refusal));
        }
    }
    if (!stop_wanted && seam_.stopped()) {
        seam_.resume();
        record(ControlEvent::kResume, deadline_ns);
    }
    status.command = seam_.step(deadline_ns);
    status.t_ns = deadline_ns;
    const bool had_future = status.remaining_s > 0.0;
    status.remaining_s = seam_.remaining_s(deadline_ns);
    status.seam = seam_.counters();
    status.stopped = seam_.stopped();
    status.at_rest = seam_.at_rest();
    ++status.ticks;
    if (status.remaining_s <= 0.0 && !status.stopped && status.seam.accepted > 0) {
        if (had_future) record(ControlEvent::kStarved, deadline_ns, status.revision);
        ++status.starved_ticks;
    }
}

}  // namespace memrt
