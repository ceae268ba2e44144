#include "frame_ring.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace memrt {

namespace {

constexpr int kReaders = static_cast<int>(FrameSlots::kMaxReaders);
constexpr int kWriterByte = kReaders;  // lock bytes 0..15 are the readers'

std::runtime_error refused(const std::string& name, const std::string& why) {
    return std::runtime_error("frame ring '" + name + "': " + why);
}

std::runtime_error refused_by_system(const std::string& name, const char* call) {
    return refused(name, std::string(call) + ": " + std::strerror(errno));
}

std::string path_of(const std::string& name) {
    if (name.empty() || name.size() > 200 || name.find('/') != std::string::npos) {
        throw std::invalid_argument("frame ring name: expected 1 to 200 characters without '/'");
    }
    return "/" + name;
}

// Locks of the open file description: they belong to this opening of the ring, not to the whole process, and end with
// it. True when the byte is now as asked for.
bool set_lock(int fd, int byte, short type) {
    struct flock lock{};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool lock_byte(int fd, int byte) {
    return set_lock(fd, byte, F_WRLCK);
}
void unlock_byte(int fd, int byte) {
    set_lock(fd, byte, F_UNLCK);
}

}  // namespace

void FrameRing::map(std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (memory == MAP_FAILED) throw refused_by_system(name_, "mmap");
    memory_ = static_cast<std::byte*>(memory);
    mapped_ = bytes;
}

std::shared_ptr<FrameRing> FrameRing::create(const std::string& name, std::uint32_t slots, FrameShape shape) {
    const std::string path = path_of(name);
    const std::size_t bytes = FrameSlots::bytes(slots, shape);

    // A leftover of a writer that died has no lock on its writer byte.
    if (const int old = shm_open(path.c_str(), O_RDWR | O_CLOEXEC, 0600); old >= 0) {
        const bool leftover = lock_byte(old, kWriterByte);
        if (leftover) shm_unlink(path.c_str());
        ::close(old);
        if (!leftover) throw refused(name, "has a writer already");
    }
    const int fd = shm_open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        if (errno == EEXIST) throw refused(name, "has a writer already");
        throw refused_by_system(name, "shm_open");
    }
    const std::shared_ptr<FrameRing> ring(new FrameRing(name, fd));
    ring->linked_ = true;
    if (!lock_byte(fd, kWriterByte)) throw refused(name, "has a writer already");
    // Reserved now: a full /dev/shm is refused here instead of killing the writer at some later frame.
    if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
        errno = error;
        throw refused_by_system(name, "posix_fallocate");
    }
    ring->map(bytes);
    ring->frames_ = FrameSlots::make(ring->memory_, slots, shape);
    return ring;
}

std::shared_ptr<FrameRing> FrameRing::open(const std::string& name) {
    const int fd = shm_open(path_of(name).c_str(), O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) throw refused_by_system(name, "shm_open");
    const std::shared_ptr<FrameRing> ring(new FrameRing(name, fd));
    struct stat info{};
    if (fstat(fd, &info) != 0) throw refused_by_system(name, "fstat");
    const auto bytes = static_cast<std::size_t>(info.st_size);
    if (bytes == 0) throw refused(name, "not a frame ring, or not ready yet");
    ring->map(bytes);
    const std::optional<FrameSlots> frames = FrameSlots::attach(ring->memory_, bytes);
    if (!frames) throw refused(name, "not a frame ring of this version, or not ready yet");
    ring->frames_ = *frames;
    for (int row = 0; row < kReaders; ++row) {
        if (!lock_byte(fd, row)) continue;
        // Whoever had this row before is gone; its pins, if it died with some, hold nothing any more.
        ring->frames_.clear_pins(static_cast<std::uint32_t>(row));
        ring->reader_ = row;
        return ring;
    }
    throw refused(name, "has 16 readers already");
}

FrameRing::~FrameRing() {
    unlink();
    if (memory_ != nullptr) munmap(memory_, mapped_);
    if (fd_ >= 0) ::close(fd_);  // drops the lock, and with it the row in the pin table
}

void FrameRing::unlink() {
    if (linked_) shm_unlink(path_of(name_).c_str());
    linked_ = false;
}

void FrameRing::clear_pins_of_the_dead() {
    for (int row = 0; row < kReaders; ++row) {
        // Held while clearing, so that no new reader moves in and pins something in the meantime.
        if (!lock_byte(fd_, row)) continue;
        frames_.clear_pins(static_cast<std::uint32_t>(row));
        unlock_byte(fd_, row);
    }
}

bool FrameRing::write(const std::uint8_t* pixels, std::uint64_t index, std::int64_t t_ns) {
    if (!writer()) throw refused(name_, "opened for reading");
    if (frames_.write(pixels, index, t_ns)) return true;
    clear_pins_of_the_dead();
    if (frames_.write(pixels, index, t_ns)) return true;
    frames_.count_dropped();
    return false;
}

std::optional<FrameRing::Borrowed> FrameRing::borrow(const std::shared_ptr<FrameRing>& ring,
                                                     std::int64_t not_after_ns) {
    if (ring->writer()) throw refused(ring->name_, "opened for writing");
    const auto slot = ring->frames_.pin(static_cast<std::uint32_t>(ring->reader_), not_after_ns);
    if (!slot) return std::nullopt;
    return std::optional<Borrowed>(std::in_place, ring, *slot);
}

FrameRing::Borrowed::Borrowed(std::shared_ptr<FrameRing> ring, std::uint32_t slot)
    : ring_(std::move(ring)), slot_(slot), index_(ring_->frames_.index(slot)), t_ns_(ring_->frames_.t_ns(slot)) {}

FrameRing::Borrowed::Borrowed(Borrowed&& other) noexcept
    : ring_(other.ring_),
      slot_(other.slot_),
      index_(other.index_),
      t_ns_(other.t_ns_),
      released_(other.released_.exchange(true, std::memory_order_relaxed)) {}

void FrameRing::Borrowed::release() {
    if (released_.exchange(true, std::memory_order_relaxed)) return;
    ring_->frames_.unpin(static_cast<std::uint32_t>(ring_->reader_), slot_);
}

}  // namespace memrt
