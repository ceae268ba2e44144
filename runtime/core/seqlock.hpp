#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>

namespace memrt {

/// \brief A small value with one writer that never waits and any number of readers that retry.
///
/// The value is kept as atomic words, so a read that overlaps a write is not a data race, only thrown away.
template <typename T>
class Seqlock {
    static_assert(std::is_trivially_copyable_v<T>);

  public:
    void store(const T& value) {
        std::array<std::uint64_t, kWords> words{};
        std::memcpy(words.data(), &value, sizeof(T));
        const std::uint64_t sequence = sequence_.load(std::memory_order_relaxed);  // only the writer changes it
        sequence_.store(sequence + 1, std::memory_order_relaxed);
        // Releases: partners of the acquires of the words in load(): who sees a new word also sees the odd sequence.
        for (std::size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_release);
        // Partner of the first acquire in load(): an even sequence comes with all its words.
        sequence_.store(sequence + 2, std::memory_order_release);
    }

    T load() const {
        std::array<std::uint64_t, kWords> words{};
        while (true) {
            const std::uint64_t before = sequence_.load(std::memory_order_acquire);  // partner: the end of store()
            for (std::size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_acquire);  // see there
            const std::uint64_t after = sequence_.load(std::memory_order_relaxed);
            if (before == after && (before & 1) == 0) break;
            std::this_thread::yield();  // the writer may have lost its core halfway: let it finish
        }
        T value;
        std::memcpy(static_cast<void*>(&value), words.data(), sizeof(T));
        return value;
    }

  private:
    static constexpr std::size_t kWords = (sizeof(T) + 7) / 8;

    std::atomic<std::uint64_t> sequence_{0};
    std::array<std::atomic<std::uint64_t>, kWords> words_{};
};

}  // namespace memrt
