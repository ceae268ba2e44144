#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <stdexcept>

#include "seam.hpp"

namespace memrt {

/// \brief An action chunk as it travels into the control thread: fixed size, trivially copyable.
struct TimedChunk {
    std::array<Action, Seam::kMaxHorizon> actions{};
    std::size_t size = 0;
    std::int64_t t0_ns = 0;
    std::int64_t dt_ns = 0;
    std::int64_t revision = 0;  ///< Of the subgoal the chunk follows.

    std::span<const Action> rows() const { return {actions.data(), size}; }
};

/// \brief Newest-wins mailbox for one consumer: a chunk nobody took is replaced by the next.
///
/// Three cells change hands by one atomic exchange, so the consumer never waits, whatever the producers do. Producers
/// take turns at a mutex that the consumer never touches.
class ChunkBuffer {
  public:
    /// \brief Puts a chunk in. Throws std::invalid_argument unless it has 1 to Seam::kMaxHorizon actions.
    void put(std::span<const Action> actions, std::int64_t t0_ns, std::int64_t dt_ns, std::int64_t revision) {
        if (actions.empty() || actions.size() > Seam::kMaxHorizon) {
            throw std::invalid_argument("ChunkBuffer.put: expected 1 to 128 actions");
        }
        const std::scoped_lock turn(producers_);
        TimedChunk& cell = cells_[back_];
        std::copy(actions.begin(), actions.end(), cell.actions.begin());
        cell.size = actions.size();
        cell.t0_ns = t0_ns;
        cell.dt_ns = dt_ns;
        cell.revision = revision;
        // Release: publishes the cell to the consumer's exchange in take(). Acquire: the cell that comes back was read
        // to its end before the consumer's exchange gave it up.
        const std::uint8_t previous =
            middle_.exchange(static_cast<std::uint8_t>(back_ | kFresh), std::memory_order_acq_rel);
        back_ = previous & kIndex;
        if ((previous & kFresh) != 0) replaced_.fetch_add(1, std::memory_order_relaxed);
    }

    /// \brief The newest chunk not yet taken, or nullptr. It stays valid until the next call. One consumer only.
    const TimedChunk* take() {
        if ((middle_.load(std::memory_order_relaxed) & kFresh) == 0) return nullptr;
        // Acquire: partner of the release in put(), makes the cell's content visible. Release: hands the cell read
        // last back to put()'s acquire.
        front_ = middle_.exchange(front_, std::memory_order_acq_rel) & kIndex;
        return &cells_[front_];
    }

    /// \brief Chunks replaced before anyone took them.
    std::uint64_t replaced() const { return replaced_.load(std::memory_order_relaxed); }

  private:
    static constexpr std::uint8_t kIndex = 3;
    static constexpr std::uint8_t kFresh = 4;

    std::array<TimedChunk, 3> cells_{};
    std::atomic<std::uint8_t> middle_{1};
    std::uint8_t back_ = 0;   // the producers' cell
    std::uint8_t front_ = 2;  // the consumer's cell
    std::mutex producers_;
    std::atomic<std::uint64_t> replaced_{0};
};

}  // namespace memrt
