#include "frame_slots.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <new>
#include <stdexcept>

namespace memrt {

namespace {

constexpr std::uint64_t kMagic = 0x32676e6952746d4dULL;  // "MmtRing2": layout of this file
constexpr std::uint32_t kNone = 0xffffffffU;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kCacheLine = 64;
constexpr int kPinAttempts = 64;

std::size_t round_up(std::size_t bytes) {
    return (bytes + kPage - 1) / kPage * kPage;
}

bool fits(std::uint32_t slots, FrameShape shape) {
    constexpr std::uint32_t kSide = 16384;
    const auto within = [](std::uint32_t value, std::uint32_t most) { return value >= 1 && value <= most; };
    return slots >= FrameSlots::kMinSlots && slots <= FrameSlots::kMaxSlots && within(shape.height, kSide) &&
           within(shape.width, kSide) && within(shape.channels, 4) &&
           round_up(shape.bytes()) * slots <= FrameSlots::kMaxBytes;
}

}  // namespace

// All fields are atomic: readers look at them before they know whether they may believe them.
struct FrameSlots::Slot {
    std::atomic<std::uint64_t> sequence{0};  // odd while the writer is at it
    std::atomic<std::uint64_t> number{0};    // of the frame, 1 for the first one written; 0 when there is none
    std::atomic<std::uint64_t> index{0};
    std::atomic<std::int64_t> t_ns{0};
};

struct FrameSlots::Header {
    std::atomic<std::uint64_t> magic{0};  // written last
    std::uint32_t slots = 0;
    FrameShape shape;
    std::array<std::uint8_t, kMaxSlots> by_age{};  // the writer's own: slots, oldest frame first
    alignas(kCacheLine) std::atomic<std::uint32_t> newest{kNone};
    std::atomic<std::uint64_t> written{0};
    std::atomic<std::uint64_t> dropped{0};
    alignas(kCacheLine) std::array<Slot, kMaxSlots> slot;
    // By slot, then by reader: the writer finds all pins of a slot in one cache line.
    alignas(kCacheLine) std::array<std::array<std::atomic<std::uint32_t>, kMaxReaders>, kMaxSlots> pins;
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free,
              "atomics in shared memory must not need a lock of the process");

FrameSlots::FrameSlots(std::byte* memory, std::uint32_t slots, FrameShape shape)
    : header_(std::launder(reinterpret_cast<Header*>(memory))),
      pixels_(reinterpret_cast<std::uint8_t*>(memory) + round_up(sizeof(Header))),
      stride_(round_up(shape.bytes())),
      slots_(slots),
      shape_(shape) {}

std::size_t FrameSlots::bytes(std::uint32_t slots, FrameShape shape) {
    if (!fits(slots, shape)) {
        throw std::invalid_argument(
            "frame ring: expected 3 to 256 slots of up to 16384 x 16384 pixels of 1 to 4 channels, at most 1 GiB");
    }
    return round_up(sizeof(Header)) + round_up(shape.bytes()) * slots;
}

FrameSlots FrameSlots::make(std::byte* memory, std::uint32_t slots, FrameShape shape) {
    auto* header = new (memory) Header();
    header->slots = slots;
    header->shape = shape;
    for (std::uint32_t i = 0; i < kMaxSlots; ++i) header->by_age[i] = static_cast<std::uint8_t>(i);
    header->magic.store(kMagic, std::memory_order_release);  // partner: the acquire in attach()
    return {memory, slots, shape};
}

std::optional<FrameSlots> FrameSlots::attach(std::byte* memory, std::size_t size) {
    if (size < round_up(sizeof(Header))) return std::nullopt;
    const Header& header = *std::launder(reinterpret_cast<const Header*>(memory));
    // Acquire: partner of the release in make(), the rest of the header is there.
    if (header.magic.load(std::memory_order_acquire) != kMagic) return std::nullopt;
    if (!fits(header.slots, header.shape) || size != bytes(header.slots, header.shape)) return std::nullopt;
    return FrameSlots(memory, header.slots, header.shape);
}

// The counts and the two below order nothing: relaxed. A pinned slot's fields came with its sequence.
std::uint64_t FrameSlots::written() const {
    return header_->written.load(std::memory_order_relaxed);
}
std::uint64_t FrameSlots::dropped() const {
    return header_->dropped.load(std::memory_order_relaxed);
}
std::uint64_t FrameSlots::index(std::uint32_t slot) const {
    return header_->slot[slot].index.load(std::memory_order_relaxed);
}
std::int64_t FrameSlots::t_ns(std::uint32_t slot) const {
    return header_->slot[slot].t_ns.load(std::memory_order_relaxed);
}
void FrameSlots::count_dropped() {
    header_->dropped.fetch_add(1, std::memory_order_relaxed);
}

bool FrameSlots::pinned(std::uint32_t slot) const {
    return std::any_of(header_->pins[slot].begin(), header_->pins[slot].end(), [](const auto& pins) {
        // Sequentially consistent: partner of the fetch_add in pin(), see the class comment. It also orders this
        // writer's stores after a reader's last look at the slot (release in unpin()).
        return pins.load(std::memory_order_seq_cst) != 0;
    });
}

// Oldest first; the newest, last in order, is never taken.
std::optional<std::uint32_t> FrameSlots::claim() {
    const auto first = header_->by_age.begin();
    const auto last = first + slots_;
    const bool empty = header_->newest.load(std::memory_order_relaxed) == kNone;  // only the writer changes it
    for (auto place = first; place != (empty ? last : last - 1); ++place) {
        const std::uint32_t slot = *place;
        if (pinned(slot)) continue;
        auto& sequence = header_->slot[slot].sequence;
        const std::uint64_t before = sequence.load(std::memory_order_relaxed);  // only the writer changes it
        sequence.store(before + 1, std::memory_order_seq_cst);                  // partner: the second load in pin()
        if (!pinned(slot)) {
            std::rotate(place, place + 1, last);
            return slot;
        }
        sequence.store(before, std::memory_order_seq_cst);  // nothing was written: the old frame stands
    }
    return std::nullopt;
}

bool FrameSlots::write(const std::uint8_t* pixels, std::uint64_t index, std::int64_t t_ns) {
    const std::optional<std::uint32_t> slot = claim();
    if (!slot) return false;
    Slot& meta = header_->slot[*slot];
    // Releases: partners of the acquires in find(): who sees one of these also sees the odd sequence, hence knows.
    meta.number.store(0, std::memory_order_release);
    std::memcpy(pixels_ + stride_ * *slot, pixels, shape_.bytes());
    meta.index.store(index, std::memory_order_relaxed);
    meta.t_ns.store(t_ns, std::memory_order_release);
    const std::uint64_t number = written() + 1;
    meta.number.store(number, std::memory_order_release);
    // Sequentially consistent, hence a release: partner of the loads of `sequence` in find() and pin().
    meta.sequence.store(meta.sequence.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
    header_->newest.store(*slot, std::memory_order_release);  // partner: the acquire in find()
    header_->written.store(number, std::memory_order_relaxed);
    return true;
}

// All loads are acquires: partners of the releases in write(). A value from a later write than the sequence looked at
// first comes with the odd sequence of that write, so that pin() finds another sequence than `found.sequence`.
FrameSlots::Search FrameSlots::find(std::int64_t not_after_ns, Candidate& found) const {
    const std::uint32_t newest = header_->newest.load(std::memory_order_acquire);
    if (newest >= slots_) return Search::kNone;
    const Slot& last = header_->slot[newest];
    found = {newest, last.sequence.load(std::memory_order_acquire)};
    if ((found.sequence & 1) != 0) return Search::kDisturbed;  // the writer went round the whole ring meanwhile
    if (last.t_ns.load(std::memory_order_acquire) <= not_after_ns) return Search::kFound;

    std::uint64_t best = 0;
    bool undecided = false;
    for (std::uint32_t i = 0; i < slots_; ++i) {
        const Slot& slot = header_->slot[i];
        const std::uint64_t sequence = slot.sequence.load(std::memory_order_acquire);
        const std::uint64_t number = slot.number.load(std::memory_order_acquire);
        if (number <= best || slot.t_ns.load(std::memory_order_acquire) > not_after_ns) continue;
        best = number;
        // Odd with its number still there: the writer has not decided whether to take this slot.
        undecided = (sequence & 1) != 0;
        found = {i, sequence};
    }
    if (undecided) return Search::kDisturbed;
    return best == 0 ? Search::kNone : Search::kFound;
}

std::optional<std::uint32_t> FrameSlots::pin(std::uint32_t reader, std::int64_t not_after_ns) {
    for (int attempt = 0; attempt < kPinAttempts; ++attempt) {
        Candidate found;
        const Search search = find(not_after_ns, found);
        if (search == Search::kNone) return std::nullopt;
        if (search == Search::kDisturbed) continue;
        header_->pins[found.slot][reader].fetch_add(1, std::memory_order_seq_cst);  // partner: the load in pinned()
        // Partner: the first store in claim(). The same as before: still the frame that was found.
        const std::uint64_t sequence = header_->slot[found.slot].sequence.load(std::memory_order_seq_cst);
        if (sequence == found.sequence) return found.slot;
        unpin(reader, found.slot);
    }
    return std::nullopt;
}

void FrameSlots::unpin(std::uint32_t reader, std::uint32_t slot) {
    // Release: partner of the load in pinned(): every look at the pixels came before.
    header_->pins[slot][reader].fetch_sub(1, std::memory_order_release);
}

void FrameSlots::clear_pins(std::uint32_t reader) {
    for (auto& pins : header_->pins) pins[reader].store(0, std::memory_order_seq_cst);
}

}  // namespace memrt
