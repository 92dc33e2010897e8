#include "protobuf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stdexcept>

namespace whetstone {
namespace {

[[noreturn]] void refuse() { throw std::runtime_error("The file is not a model in protobuf."); }

std::string_view take(std::string_view& rest, std::uint64_t bytes) {
  if (bytes > rest.size()) refuse();
  const std::string_view taken = rest.substr(0, bytes);
  rest.remove_prefix(bytes);
  return taken;
}

}  // namespace

std::uint64_t readVarint(std::string_view& rest) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (rest.empty()) refuse();
    const auto byte = static_cast<unsigned char>(rest.front());
    rest.remove_prefix(1);
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80U) return value;
  }
  refuse();
}

Field readField(std::string_view& rest) {
  const std::uint64_t tag = readVarint(rest);
  const std::uint64_t id = tag >> 3U;
  switch (tag & 7U) {
    case 0: return {id, {}, readVarint(rest)};
    case 1: return {id, take(rest, 8), 0};
    case 2: return {id, take(rest, readVarint(rest)), 0};
    case 5: return {id, take(rest, 4), 0};
    default: refuse();
  }
}

std::string_view textOf(std::string_view message, std::uint64_t id) {
  std::string_view text;
  eachOf(message, id, [&text](std::string_view found) { text = found; });
  return text;
}

MappedFile::MappedFile(const std::string& file) {
  const int opened = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat about {};
  if (opened < 0 || fstat(opened, &about) != 0) throw std::runtime_error("The file cannot be opened: " + file);
  size_ = static_cast<std::size_t>(about.st_size);
  memory_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, opened, 0);
  close(opened);
  if (memory_ == MAP_FAILED) throw std::runtime_error("The file cannot be mapped: " + file);
}

MappedFile::~MappedFile() { munmap(memory_, size_); }

}  // namespace whetstone
