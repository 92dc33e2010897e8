// From the pixels of an image to a tensor, steps 5 to 7 of docs/preprocessing.md, and from scores and boxes to detections. Part of no engine; it
// knows neither Node nor a library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace whetstone {

struct Rectangle {
  std::size_t left;
  std::size_t top;
  std::size_t width;
  std::size_t height;
};

// Height × width × RGB.
struct Pixels {
  const std::uint8_t* data;
  std::size_t bytes;
  std::size_t width;
};

enum class Channels { rgb, bgr, grey };

struct TensorSpec {
  // That part of the image becomes this part of the tensor.
  Rectangle part;
  Rectangle target;
  std::size_t width;
  std::size_t height;
  std::uint8_t padColor[3];
  Channels channels;
  bool interleaved;  // NHWC, otherwise NCHW
};

// An array of 1, 2, 4 or 8 bytes for each element.
struct Elements {
  void* data;
  std::size_t count;
  std::size_t elementBytes;
};

// `tables`: for each channel of the tensor what each of the 256 levels becomes. Throws std::exception where a size does not fit the others.
void fillTensor(const Pixels& pixels, const TensorSpec& spec, const Elements& tables, const Elements& tensor);

template <class T>
struct Span {
  const T* data;
  std::size_t count;
};

// The indices of the best scores that reach the threshold, `max` at most: best first, equal ones as they come.
std::vector<std::uint32_t> bestOf(Span<float> scores, double threshold, std::size_t max);

// Those of the candidates, best first, that no better one of their class overlaps by more than `iouMax`, `boxesMax` at most. Candidate i is class
// i mod `classCount` of box i ÷ `classCount`; a box is left, top, right, bottom. Throws std::exception where a candidate has no box.
std::vector<std::uint32_t> suppress(Span<float> boxes, Span<std::uint32_t> candidates, std::size_t classCount, double iouMax,
                                    std::size_t boxesMax);

}  // namespace whetstone
