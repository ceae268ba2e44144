#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

namespace memrt {

/// \brief Size of the images in a ring; uint8 samples, row by row.
struct FrameShape {
    std::uint32_t height = 0;
    std::uint32_t width = 0;
    std::uint32_t channels = 0;

    std::size_t bytes() const { return std::size_t{height} * width * channels; }
    bool operator==(const FrameShape&) const = default;
};

/// \brief The lock-free part of a FrameRing: slots for frames, and who looks at which, in memory given by the caller.
///
/// One writer, up to 16 readers, each a row in the table of pins. The writer never waits: of the slots that are neither
/// the newest nor pinned it fills the one with the oldest frame, so that the frames kept are consecutive as far as pins
/// allow; it drops the frame when there is none. A reader looks for a slot, pins it, looks at it in place, and lets it
/// go. What keeps the two apart: the writer makes a slot's sequence odd and *then* looks for pins; a reader puts its
/// pin and *then* looks at the sequence. Both use sequentially consistent operations, so at least one of them sees the
/// other and backs off, and a pinned slot with an even sequence is not written until the pin is gone. An even sequence
/// that is the same as before the pin also says that the slot still holds the frame that was looked for.
///
/// A view: copies work on the same memory, which must stay.
class FrameSlots {
  public:
    static constexpr std::uint32_t kMinSlots = 3;  ///< One newest, one being read, one being written.
    static constexpr std::uint32_t kMaxSlots = 256;
    static constexpr std::uint32_t kMaxReaders = 16;
    static constexpr std::size_t kMaxBytes = std::size_t{1} << 30;  ///< Of all frames of a ring.
    static constexpr std::int64_t kNewest = std::numeric_limits<std::int64_t>::max();

    FrameSlots() = default;

    /// \brief Memory needed, a multiple of the page size. \throws std::invalid_argument for a number of slots or a
    /// shape
    ///        out of range.
    static std::size_t bytes(std::uint32_t slots, FrameShape shape);

    /// \brief Lays out empty slots in `memory`, page-aligned and of bytes(slots, shape).
    static FrameSlots make(std::byte* memory, std::uint32_t slots, FrameShape shape);

    /// \brief The slots that make() laid out in `memory`; none when it is not of this version, not ready yet, or
    ///        `size` does not fit.
    static std::optional<FrameSlots> attach(std::byte* memory, std::size_t size);

    /// \brief Writer only: adds a frame of shape().bytes() bytes. False when readers pin every slot but the newest.
    bool write(const std::uint8_t* pixels, std::uint64_t index, std::int64_t t_ns);

    /// \brief Pins the frame written last with a time of at most `not_after_ns`; none when the ring holds no such
    /// frame.
    ///
    /// Times are taken to grow from frame to frame. One frame may be pinned several times.
    std::optional<std::uint32_t> pin(std::uint32_t reader, std::int64_t not_after_ns);

    /// \brief Takes one pin of a slot back: the pixels must not be looked at any more.
    void unpin(std::uint32_t reader, std::uint32_t slot);

    /// \brief Takes all pins of a reader that is gone back.
    void clear_pins(std::uint32_t reader);

    /// \brief Counts a frame that was not written.
    void count_dropped();

    // Of a pinned slot.
    const std::uint8_t* pixels(std::uint32_t slot) const { return pixels_ + stride_ * slot; }
    std::uint64_t index(std::uint32_t slot) const;
    std::int64_t t_ns(std::uint32_t slot) const;

    FrameShape shape() const { return shape_; }
    std::uint32_t slots() const { return slots_; }
    std::uint64_t written() const;  ///< Frames written since the slots were made.
    std::uint64_t dropped() const;  ///< Frames dropped because every slot was pinned.

  private:
    struct Slot;
    struct Header;
    struct Candidate {
        std::uint32_t slot = 0;
        std::uint64_t sequence = 0;  // when it was looked at: even
    };
    enum class Search : std::uint8_t { kFound, kNone, kDisturbed };

    FrameSlots(std::byte* memory, std::uint32_t slots, FrameShape shape);
    bool pinned(std::uint32_t slot) const;
    std::optional<std::uint32_t> claim();
    Search find(std::int64_t not_after_ns, Candidate& found) const;

    Header* header_ = nullptr;
    std::uint8_t* pixels_ = nullptr;
    std::size_t stride_ = 0;
    std::uint32_t slots_ = 0;
    FrameShape shape_;
};

}  // namespace memrt
