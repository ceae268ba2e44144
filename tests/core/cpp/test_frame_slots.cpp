#include <doctest/doctest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <optional>

#include "frame_slots.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

namespace {

constexpr FrameShape kSlotShape{4, 16, 3};

// Memory that writer and readers share at one address, as ThreadSanitizer needs it to tell a race.
struct Memory {
    explicit Memory(std::uint32_t slots)
        : size(FrameSlots::bytes(slots, kSlotShape)),
          bytes(static_cast<std::byte*>(std::aligned_alloc(4096, size)), &std::free),
          frames(FrameSlots::make(bytes.get(), slots, kSlotShape)) {}

    std::size_t size;
    std::unique_ptr<std::byte, decltype(&std::free)> bytes;
    FrameSlots frames;
};

bool write(FrameSlots& frames, std::uint64_t index) {
    const std::vector<std::uint8_t> pixels(kSlotShape.bytes(), static_cast<std::uint8_t>(index));
    return frames.write(pixels.data(), index, static_cast<std::int64_t>(3 * index));
}

// Whether a pinned slot holds one frame and nothing else.
bool whole(const FrameSlots& frames, std::uint32_t slot) {
    const std::uint64_t index = frames.index(slot);
    bool good = frames.t_ns(slot) == static_cast<std::int64_t>(3 * index);
    for (std::size_t i = 0; i < kSlotShape.bytes(); ++i) {
        good &= frames.pixels(slot)[i] == static_cast<std::uint8_t>(index);
    }
    return good;
}

}  // namespace

TEST_CASE("only what make() laid out is attached to") {
    Memory memory(5);
    CHECK(FrameSlots::attach(memory.bytes.get(), memory.size).has_value());
    CHECK_FALSE(FrameSlots::attach(memory.bytes.get(), memory.size - 4096).has_value());
    CHECK_FALSE(FrameSlots::attach(memory.bytes.get(), 100).has_value());
    memory.bytes.get()[0] ^= std::byte{1};
    CHECK_FALSE(FrameSlots::attach(memory.bytes.get(), memory.size).has_value());
}

TEST_CASE("any order of writing, pinning by time and unpinning agrees with a list of frames") {
    std::mt19937_64 random(3);
    for (int round = 0; round < 20 * kScale; ++round) {
        const auto slots = static_cast<std::uint32_t>(3 + random() % 10);
        Memory memory(slots);
        std::vector<std::uint64_t> kept;                                             // oldest first
        std::multimap<std::uint64_t, std::pair<std::uint32_t, std::uint32_t>> held;  // index: reader, slot
        std::uint64_t next = 1;
        int wrong = 0;
        for (int step = 0; step < 300; ++step) {
            const auto dice = random() % 10;
            if (dice < 5) {
                bool fits = kept.size() < slots;
                for (std::size_t i = 0; !fits && i + 1 < kept.size(); ++i) {
                    if (held.contains(kept[i])) continue;
                    kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(i));
                    fits = true;
                }
                wrong += write(memory.frames, next) != fits;
                if (fits) kept.push_back(next);
                ++next;
            } else if (dice < 8) {
                const auto reader = static_cast<std::uint32_t>(random() % FrameSlots::kMaxReaders);
                const auto limit =
                    dice == 5 ? FrameSlots::kNewest
                              : static_cast<std::int64_t>(3 * next) - static_cast<std::int64_t>(random() % (4 * slots));
                std::optional<std::uint64_t> expected;
                for (const std::uint64_t index : kept) {
                    if (static_cast<std::int64_t>(3 * index) <= limit) expected = index;
                }
                const std::optional<std::uint32_t> slot = memory.frames.pin(reader, limit);
                wrong += slot.has_value() != expected.has_value();
                if (!slot || !expected) continue;
                wrong += memory.frames.index(*slot) != *expected;
                held.emplace(*expected, std::pair{reader, *slot});
            } else if (!held.empty()) {
                const auto one = std::next(held.begin(), static_cast<std::ptrdiff_t>(random() % held.size()));
                wrong += !whole(memory.frames, one->second.second);
                memory.frames.unpin(one->second.first, one->second.second);
                held.erase(one);
            }
        }
        CHECK(wrong == 0);
        CHECK(memory.frames.written() < next);
    }
}

TEST_CASE("beside a writer at full speed no frame is torn, none of the wrong time is given") {
    for (const std::uint32_t slots : {3U, 4U, 64U}) {
        Memory memory(slots);
        const std::uint64_t frames_to_write = 20'000 * kScale;
        std::atomic<bool> done{false};
        std::atomic<int> torn{0};
        std::atomic<int> wrong{0};
        std::atomic<std::uint64_t> looked{0};
        CHECK(write(memory.frames, 1));
        {
            Threads readers;
            for (std::uint32_t reader = 0; reader < 3; ++reader) {
                readers.run([&, reader, frames = memory.frames]() mutable {
                    std::uint64_t newest = 0;
                    std::uint64_t turn = 0;
                    while (!done) {
                        if (const auto slot = frames.pin(reader, FrameSlots::kNewest)) {
                            torn += !whole(frames, *slot);
                            wrong += frames.index(*slot) < newest;
                            newest = frames.index(*slot);
                            frames.unpin(reader, *slot);
                            ++looked;
                        }
                        const std::uint64_t wanted = newest - std::min(newest, turn++ % slots);
                        const auto limit = static_cast<std::int64_t>(3 * wanted + turn % 3);
                        if (const auto slot = frames.pin(reader, limit)) {
                            torn += !whole(frames, *slot);
                            wrong += frames.t_ns(*slot) > limit;
                            frames.unpin(reader, *slot);
                            ++looked;
                        }
                    }
                });
            }
            for (std::uint64_t index = 2; index <= frames_to_write; ++index) write(memory.frames, index);
            // Readers may have had no core so far.
            CHECK(eventually([&] { return looked > 100; }));
            done = true;
        }
        CHECK(torn == 0);
        CHECK(wrong == 0);
        // Nobody holds anything any more: every slot can be written again.
        const std::uint64_t before = memory.frames.written();
        for (std::uint64_t index = 0; index < slots; ++index) CHECK(write(memory.frames, frames_to_write + index));
        CHECK(memory.frames.written() == before + slots);
    }
}
