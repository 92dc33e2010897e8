// What reads ONNX files itself, given files that end early or were made to harm it: for the sanitizers.
#include "onnx_file.h"

#include "check.h"
#include "openvino_refusals.h"
#include "protobuf.h"

using namespace whetstone;

namespace {

// A field that is a message or text.
std::string field(unsigned id, const std::string& bytes) {
  std::string made(1, static_cast<char>(id << 3U | 2U));
  for (std::size_t left = bytes.size();; left >>= 7U) {
    made += static_cast<char>((left & 0x7FU) | (left < 0x80U ? 0U : 0x80U));
    if (left < 0x80U) return made + bytes;
  }
}

}  // namespace

void testOnnxFile(const std::string& file) {
  const MappedFile mapped(file);
  CHECK(readDeclaredPorts(mapped.bytes()).inputs.size() == 1);
  requireSafeForOpenVino(mapped.bytes());
  for (std::size_t length = 0; length < mapped.bytes().size(); length += 101) {
    const std::string early(mapped.bytes().substr(0, length));
    errorOf([&early] { readDeclaredPorts(early); });
    errorOf([&early] { requireSafeForOpenVino(early); });
  }
  CHECK(!errorOf([] { requireSafeForOpenVino("no protobuf"); }).empty());

  // An operator whose attribute is a graph with an operator whose attribute is a graph, and so on.
  std::string graph;
  for (int depth = 0; depth < 300; depth += 1) graph = field(1, field(5, field(6, graph)));
  CHECK(contains(errorOf([&graph] { requireSafeForOpenVino(field(7, graph)); }), "more than 100 graphs"));
}
