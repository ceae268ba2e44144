#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>

namespace memrt {

/// \brief Something that happened: which kind (a number the caller gives names to), when, and for how long.
struct TraceEvent {
    std::int32_t name = 0;
    std::int32_t thread = 0;  ///< Kernel thread id of whoever recorded it.
    std::int64_t t_ns = 0;
    std::int64_t duration_ns = kInstant;
    std::int64_t value = 0;  ///< A number that goes with it, such as a revision; the name says which.

    static constexpr std::int64_t kInstant = -1;  ///< Duration of what has none.
};

/// \brief The kernel's id of the calling thread, asked once per thread.
inline std::int32_t this_thread() {
    static thread_local const auto id = static_cast<std::int32_t>(syscall(SYS_gettid));
    return id;
}

/// \brief Bounded queue of events from any thread to one that drains it. Recording never waits and never allocates.
///
/// When nobody drains, new events are dropped and counted: what led up to a jam is worth more than the jam.
class TraceRing {
  public:
    static constexpr std::size_t kMaxCapacity = std::size_t{1} << 20;

    /// \param capacity Events held, rounded up to a power of two; 2 to kMaxCapacity.
    explicit TraceRing(std::size_t capacity) {
        if (capacity < 2 || capacity > kMaxCapacity) {
            throw std::invalid_argument("TraceRing: capacity must be in 2 to 1048576");
        }
        const std::size_t size = std::bit_ceil(capacity);
        mask_ = size - 1;
        cells_ = std::make_unique<Cell[]>(size);
        for (std::size_t i = 0; i < size; ++i) cells_[i].turn.store(i, std::memory_order_relaxed);
    }

    /// \brief Adds an event; false (and counted) when the ring is full.
    bool record(const TraceEvent& event) {
        std::uint64_t place = head_.load(std::memory_order_relaxed);
        while (true) {
            Cell& cell = cells_[place & mask_];
            // Partner of the release in drain_one(): the cell was read to its end before it is written again.
            const std::uint64_t turn = cell.turn.load(std::memory_order_acquire);
            const auto ahead = static_cast<std::int64_t>(turn - place);
            if (ahead == 0) {
                // Relaxed: the place is only reserved here, the turn below publishes it.
                if (head_.compare_exchange_weak(place, place + 1, std::memory_order_relaxed)) {
                    cell.event = event;
                    cell.turn.store(place + 1, std::memory_order_release);  // partner: the acquire in drain_one()
                    return true;
                }
            } else if (ahead < 0) {
                dropped_.fetch_add(1, std::memory_order_relaxed);
                return false;
            } else {
                place = head_.load(std::memory_order_relaxed);
            }
        }
    }

    /// \brief Takes the oldest event; false when there is none. One drainer at a time.
    bool drain_one(TraceEvent& event) {
        Cell& cell = cells_[tail_ & mask_];
        // Partner of the release in record(): the event is there in full.
        if (cell.turn.load(std::memory_order_acquire) != tail_ + 1) return false;
        event = cell.event;
        cell.turn.store(tail_ + mask_ + 1, std::memory_order_release);  // partner: the acquire in record()
        ++tail_;
        return true;
    }

    std::size_t capacity() const { return mask_ + 1; }
    std::uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

  private:
    struct Cell {
        std::atomic<std::uint64_t> turn{0};
        TraceEvent event{};
    };

    std::unique_ptr<Cell[]> cells_;
    std::size_t mask_ = 0;
    alignas(64) std::atomic<std::uint64_t> head_{0};
    alignas(64) std::uint64_t tail_ = 0;
    std::atomic<std::uint64_t> dropped_{0};
};

}  // namespace memrt
