// Reads files in protobuf without a schema: https://protobuf.dev/programming-guides/encoding/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace whetstone {

// A field of a message as it comes: a text or message has `bytes`, a number has `number`.
struct Field {
  std::uint64_t id;
  std::string_view bytes;
  std::uint64_t number;
};

std::uint64_t readVarint(std::string_view& rest);
// Takes the next field off `rest`. These throw std::exception where it is not as protobuf has it.
Field readField(std::string_view& rest);

template <class Use>
void eachField(std::string_view message, Use use) {
  while (!message.empty()) use(readField(message));
}

// Calls `use` with each occurrence of one text or message.
template <class Use>
void eachOf(std::string_view message, std::uint64_t id, Use use) {
  eachField(message, [&](const Field& field) {
    if (field.id == id) use(field.bytes);
  });
}

// The last occurrence of a text; empty where there is none.
std::string_view textOf(std::string_view message, std::uint64_t id);

// The bytes of a file, for as long as this lives.
class MappedFile {
 public:
  explicit MappedFile(const std::string& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::string_view bytes() const { return {static_cast<const char*>(memory_), size_}; }

 private:
  void* memory_;
  std::size_t size_;
};

}  // namespace whetstone
