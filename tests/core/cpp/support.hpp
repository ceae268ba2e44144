#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "seam.hpp"

namespace memrt::test {

inline constexpr std::int64_t kMs = 1'000'000;
inline constexpr JointArray kHome{0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785};

// Sanitizers make everything several times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kScale = 3;
#else
inline constexpr int kScale = 10;
#endif

/// A chunk that goes straight from `from` to `from + distance` in every joint.
inline std::vector<Action> line(const JointArray& from, double distance, std::size_t horizon) {
    std::vector<Action> chunk(horizon);
    for (std::size_t i = 0; i < horizon; ++i) {
        const double share = static_cast<double>(i + 1) / static_cast<double>(horizon);
        for (std::size_t j = 0; j < kJoints; ++j) chunk[i][j] = from[j] + share * distance;
        chunk[i][kJoints] = 0.5;
    }
    return chunk;
}

/// Waits until something is true, up to 20 s: however slow the machine, a test must not hang.
template <typename Condition>
bool eventually(Condition condition) {
    const std::int64_t give_up = now_ns() + 20'000 * kMs;
    while (!condition()) {
        if (now_ns() > give_up) return false;
        sleep_until(now_ns() + kMs);
    }
    return true;
}

/// Threads that are joined at the end of a scope.
class Threads {
  public:
    template <typename Work>
    void run(Work work) {
        threads_.emplace_back(std::move(work));
    }
    void join() {
        for (auto& thread : threads_) thread.join();
        threads_.clear();
    }
    ~Threads() { join(); }

  private:
    std::vector<std::thread> threads_;
};

}  // namespace memrt::test
