#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>

#include "chunk_buffer.hpp"
#include "histogram.hpp"
#include "seam.hpp"
#include "seqlock.hpp"
#include "trace_ring.hpp"

namespace memrt {

/// \brief What the control thread records in a trace ring; the numbers are the events' names.
enum class ControlEvent : std::int32_t {
    kChunkTaken = 1,    ///< Value: the chunk's revision.
    kChunkRefused = 2,  ///< Value: the Refusal.
    kMissedTicks = 3,   ///< Duration: from the first missed deadline to the next one kept. Value: how many.
    kStarved = 4,       ///< The pushed future ran out. Value: the revision of its last chunk.
    kStop = 5,
    kResume = 6,
};

/// \brief What the control thread shows after every tick.
struct ControlStatus {
    Command command{};
    std::int64_t t_ns = 0;      ///< The time the command is for.
    std::int64_t revision = 0;  ///< Of the chunk being played; 0 before the first.
    double remaining_s = 0.0;   ///< Pushed future after `t_ns`.
    std::uint64_t ticks = 0;
    std::uint64_t missed_ticks = 0;   ///< Deadlines that passed unserved.
    std::uint64_t starved_ticks = 0;  ///< Ticks after the first chunk with no pushed future, stops not counted.
    SeamCounters seam{};
    bool stopped = false;
    bool at_rest = true;
};

/// \brief Steps a Seam at a fixed rate in its own thread and publishes its commands.
///
/// Deadlines are absolute (CLOCK_MONOTONIC), so lateness never adds up; a command is computed for its deadline, not for
/// the moment the thread woke. The thread runs under SCHED_FIFO where permitted. It takes no lock (so never Python's
/// either), allocates nothing and never spins: it sleeps until the next deadline, and skips deadlines already past.
class ControlLoop {
  public:
    /// \param rate_hz Ticks per second, 1 to 4000.
    /// \param trace   Where events go; may be null.
    /// Other arguments as Seam's. \throws std::invalid_argument naming the one out of range.
    ControlLoop(const SeamLimits& limits, double rate_hz, double preview_s, double replan_s, double speed,
                std::shared_ptr<TraceRing> trace);
    ~ControlLoop();
    ControlLoop(const ControlLoop&) = delete;
    ControlLoop& operator=(const ControlLoop&) = delete;

    /// \brief Starts the thread with the arm at rest at `q`. \throws std::runtime_error when it is running already.
    void start(const JointArray& q, double gripper);

    /// \brief Hands a chunk to the control thread. What the thread cannot know better is checked here.
    Refusal push(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns, std::int64_t revision);

    /// \brief The newest command, and everything counted up to it.
    ControlStatus status() const { return status_.load(); }

    /// \brief Where the arm is to be at `t_ns` by the chunks that the thread has taken: see Seam::planned(). Any
    /// thread.
    JointArray planned(std::int64_t t_ns) const;

    /// \brief Brakes inside the limits and refuses chunks from this call on. Waits until the thread has acknowledged.
    ///
    /// \return False when there was no acknowledgement within a tenth of a second (or two ticks): the arm must then be
    ///         stopped by other means.
    bool stop();

    /// \brief Accepts chunks again. Waits for the acknowledgement as stop() does.
    bool resume();

    /// \brief Another factor on the speed limits, from the next tick on that finds the arm stopped and at rest.
    ///
    /// Call it while the arm is, and before resume(); or before start().
    /// \throws std::invalid_argument unless it is above 0 and at most 1.
    void set_speed(double speed);

    /// \brief Ends the thread, wherever the arm is. Call stop() before, and wait for `at_rest`.
    void shutdown();

    bool running() const {
        // Partner: the releases in start() and shutdown(). Who sees it true sees the seam at its start, too.
        return running_.load(std::memory_order_acquire);
    }
    /// \brief Whether the thread got SCHED_FIFO.
    bool realtime() const { return realtime_.load(std::memory_order_relaxed); }
    /// \brief Chunks that were replaced before the thread saw them.
    std::uint64_t replaced() const { return inbox_.replaced(); }
    /// \brief Chunks refused by push(); those refused later, by the thread, are in the status.
    std::uint64_t rejected() const { return rejected_.load(std::memory_order_relaxed); }
    const Histogram& lateness() const { return lateness_; }
    const Histogram& work() const { return work_; }

  private:
    void run();
    void tick(std::int64_t deadline_ns, ControlStatus& status);
    bool wait_for_mode(bool stopped);
    void record(ControlEvent event, std::int64_t t_ns, std::int64_t value = 0,
                std::int64_t duration_ns = TraceEvent::kInstant);

    Seam seam_;  // the control thread's, once it runs
    std::int64_t period_ns_;
    std::shared_ptr<TraceRing> trace_;
    ChunkBuffer inbox_;
    Seqlock<ControlStatus> status_;
    Seqlock<Spline> curve_;  // the seam's, as of the last chunk or stop
    Histogram lateness_;
    Histogram work_;
    std::atomic<std::uint64_t> rejected_{0};
    double speed_;  // the seam's
    std::atomic<double> speed_wanted_;
    std::atomic<bool> stop_wanted_{false};
    std::atomic<bool> stopped_{false};
    std::atomic<bool> quit_{false};
    std::atomic<bool> running_{false};
    std::atomic<bool> realtime_{false};
    std::thread thread_;
};

}  // namespace memrt
