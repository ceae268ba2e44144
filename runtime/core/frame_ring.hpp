#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace memrt {

/// \brief Size of the images in a ring; uint8 samples, row by row.
struct FrameShape {
    std::uint32_t height = 0;
    std::uint32_t width = 0;
    std::uint32_t channels = 0;

    std::size_t bytes() const { return std::size_t{height} * width * channels; }
    bool operator==(const FrameShape&) const = default;
};

/// \brief Frames of one camera in POSIX shared memory: one writer, up to 16 readers, any processes of this machine.
///
/// The writer never waits: it fills a slot that is neither the newest nor pinned by a reader, and drops the frame when
/// there is none. A reader pins the newest slot, looks at it in place, and lets it go. What keeps the two apart:
/// the writer makes a slot's sequence odd and *then* looks for pins; a reader puts its pin and *then* looks at the
/// sequence. Both use sequentially consistent operations, so at least one of them sees the other and backs off, and a
/// pinned slot with an even sequence is not written until the pin is gone.
///
/// A reader that dies takes its pins with it: every reader holds a lock on one byte of the memory object, which the
/// kernel drops when the process ends, and the writer clears pins whose byte is free. The writer's own byte keeps a
/// second writer out and tells a ring in use from a leftover.
class FrameRing {
  public:
    static constexpr std::uint32_t kMinSlots = 3;  ///< One newest, one being read, one being written.
    static constexpr std::uint32_t kMaxSlots = 64;
    static constexpr std::uint32_t kMaxReaders = 16;
    static constexpr std::size_t kMaxBytes = std::size_t{1} << 30;  ///< Of all frames of a ring.

    /// \brief A pinned frame. The pixels stay as they are until release() or destruction.
    class Borrowed {
      public:
        Borrowed(std::shared_ptr<FrameRing> ring, std::uint32_t slot);
        ~Borrowed() { release(); }
        Borrowed(const Borrowed&) = delete;
        Borrowed& operator=(const Borrowed&) = delete;

        /// \brief Lets the slot go; the pixels must not be looked at any more. A second call does nothing.
        void release();
        bool released() const { return released_.load(std::memory_order_relaxed); }

        const std::uint8_t* data() const;
        std::uint64_t index() const { return index_; }
        std::int64_t t_ns() const { return t_ns_; }
        FrameShape shape() const { return ring_->shape(); }

      private:
        std::shared_ptr<FrameRing> ring_;
        std::uint32_t slot_;
        std::uint64_t index_;
        std::int64_t t_ns_;
        std::atomic<bool> released_{false};
    };

    /// \brief Makes a ring and becomes its writer. A leftover of the same name without a writer is replaced.
    /// \throws std::invalid_argument for a bad name or size, std::runtime_error when the ring is in use or the system
    ///         refuses the memory.
    static std::shared_ptr<FrameRing> create(const std::string& name, std::uint32_t slots, FrameShape shape);

    /// \brief Opens a ring as a reader. \throws std::runtime_error when there is none, it is not one of ours, or it has
    ///        16 readers already.
    static std::shared_ptr<FrameRing> open(const std::string& name);

    ~FrameRing();
    FrameRing(const FrameRing&) = delete;
    FrameRing& operator=(const FrameRing&) = delete;

    /// \brief Writer only: adds a frame of shape().bytes() bytes. False (and counted) when readers pin every slot.
    bool write(const std::uint8_t* pixels, std::uint64_t index, std::int64_t t_ns);

    /// \brief Pins the newest frame; null before the first one. Reader only.
    static std::unique_ptr<Borrowed> borrow(const std::shared_ptr<FrameRing>& ring);

    /// \brief Removes the name; who has the ring open keeps it. Writer only, done by the destructor as well.
    void unlink();

    FrameShape shape() const { return shape_; }
    std::uint32_t slots() const { return slots_; }
    bool writer() const { return reader_ < 0; }
    const std::string& name() const { return name_; }
    std::uint64_t written() const;  ///< Frames written since the ring was made.
    std::uint64_t dropped() const;  ///< Frames dropped because every slot was pinned.

  private:
    struct Slot;
    struct Header;

    FrameRing(std::string name, int fd) : name_(std::move(name)), fd_(fd) {}
    void map(std::size_t bytes);
    bool pinned(std::uint32_t slot) const;
    void clear_pins_of_the_dead();
    std::optional<std::uint32_t> claim(std::uint32_t newest);
    bool pin_newest(std::uint32_t& slot);

    std::string name_;
    int fd_ = -1;
    int reader_ = -1;  // row in the pin table, -1 for the writer
    std::byte* memory_ = nullptr;
    std::size_t mapped_ = 0;
    Header* header_ = nullptr;
    std::byte* pixels_ = nullptr;
    std::size_t stride_ = 0;
    std::uint32_t slots_ = 0;
    FrameShape shape_;
    bool linked_ = false;
};

}  // namespace memrt
