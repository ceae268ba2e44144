#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "frame_slots.hpp"

namespace memrt {

/// \brief Frames of one camera in POSIX shared memory: one writer, up to 16 readers, any processes of this machine.
///
/// What keeps writer and readers apart is FrameSlots; this class gives it memory and knows who is alive: every reader
/// holds a lock on one byte of the memory object, which the kernel drops when the process ends, and the writer clears
/// pins whose byte is free. The writer's own byte keeps a second writer out and tells a ring in use from a leftover.
class FrameRing {
  public:
    /// \brief A pinned frame. The pixels stay as they are until release() or destruction.
    class Borrowed {
      public:
        Borrowed(std::shared_ptr<FrameRing> ring, std::uint32_t slot);
        Borrowed(Borrowed&& other) noexcept;
        ~Borrowed() { release(); }
        Borrowed(const Borrowed&) = delete;
        Borrowed& operator=(const Borrowed&) = delete;
        Borrowed& operator=(Borrowed&&) = delete;

        /// \brief Lets the slot go; the pixels must not be looked at any more. A second call does nothing.
        void release();
        bool released() const { return released_.load(std::memory_order_relaxed); }

        const std::uint8_t* data() const { return ring_->frames_.pixels(slot_); }
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

    /// \brief Pins the newest frame with a time of at most `not_after_ns`; none when the ring holds no such frame.
    ///        Reader only; no allocation.
    static std::optional<Borrowed> borrow(const std::shared_ptr<FrameRing>& ring,
                                          std::int64_t not_after_ns = FrameSlots::kNewest);

    /// \brief Removes the name; who has the ring open keeps it. Writer only, done by the destructor as well.
    void unlink();

    FrameShape shape() const { return frames_.shape(); }
    std::uint32_t slots() const { return frames_.slots(); }
    bool writer() const { return reader_ < 0; }
    const std::string& name() const { return name_; }
    std::uint64_t written() const { return frames_.written(); }
    std::uint64_t dropped() const { return frames_.dropped(); }

  private:
    FrameRing(std::string name, int fd) : name_(std::move(name)), fd_(fd) {}
    void map(std::size_t bytes);
    void clear_pins_of_the_dead();

    std::string name_;
    int fd_ = -1;
    int reader_ = -1;  // row in the pin table, -1 for the writer
    std::byte* memory_ = nullptr;
    std::size_t mapped_ = 0;
    FrameSlots frames_;
    bool linked_ = false;
};

}  // namespace memrt
