// Computes the same numbers in the same order as src/vision/tensor.ts and detections.ts, so that both give the same bytes: change them together.
#include "vision.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <unordered_map>
#include <vector>

namespace whetstone {
namespace {

// Of the source pixels `first`, `first + 1` … for one target pixel; their sum is 1.
struct Weights {
  std::size_t first;
  std::vector<double> values;
};

// One direction: the triangle filter for each of `m` target pixels over `n` source pixels.
std::vector<Weights> weightsOf(std::size_t n, std::size_t m) {
  const double scale = static_cast<double>(n) / static_cast<double>(m);
  const double support = std::max(1.0, scale);
  std::vector<Weights> all;
  all.reserve(m);
  for (std::size_t i = 0; i < m; i += 1) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    // Those less than `support` away; the others would weigh nothing.
    const double first = std::max(0.0, std::floor(centre - support - 0.5) + 1);
    const double last = std::min(static_cast<double>(n) - 1, std::ceil(centre + support - 0.5) - 1);
    Weights weights{static_cast<std::size_t>(first), {}};
    double sum = 0;
    for (double source = first; source <= last; source += 1) {
      weights.values.push_back(std::max(0.0, 1 - std::abs(source + 0.5 - centre) / support));
      sum += weights.values.back();
    }
    for (double& weight : weights.values) weight /= sum;
    all.push_back(std::move(weights));
  }
  return all;
}

// The compiler makes vector instructions of this loop, which takes most of the time.
void addRow(const std::uint8_t* row, double weight, std::size_t count, double* sums) {
  for (std::size_t i = 0; i < count; i += 1) sums[i] += weight * row[i];
}

// `from`: the first source pixel of the part, rows of which are `step` bytes apart.
void addRows(const std::uint8_t* from, std::size_t step, const Weights& weights, std::vector<double>& sums) {
  // What is summed up stays in the processor's first cache.
  constexpr std::size_t blockMax = 1024;
  for (std::size_t start = 0; start < sums.size(); start += blockMax) {
    const std::size_t count = std::min(blockMax, sums.size() - start);
    std::fill_n(&sums[start], count, 0.0);
    const std::uint8_t* row = from + weights.first * step + start;
    for (const double weight : weights.values) {
      addRow(row, weight, count, &sums[start]);
      row += step;
    }
  }
}

std::uint8_t levelOf(double sum) { return static_cast<std::uint8_t>(std::min(255, static_cast<int>(sum + 0.5))); }

void addColumns(const std::vector<double>& sums, const std::vector<Weights>& across, std::uint8_t* levels) {
  for (const auto& [first, values] : across) {
    double red = 0;
    double green = 0;
    double blue = 0;
    const double* at = &sums[3 * first];
    for (const double weight : values) {
      red += weight * at[0];
      green += weight * at[1];
      blue += weight * at[2];
      at += 3;
    }
    levels[0] = levelOf(red);
    levels[1] = levelOf(green);
    levels[2] = levelOf(blue);
    levels += 3;
  }
}

// ITU-R BT.601 in whole numbers: the weights add up to 65,536, so that a grey pixel keeps its level.
std::uint8_t lumaOf(const std::uint8_t* rgb) {
  return static_cast<std::uint8_t>((19595U * rgb[0] + 38470U * rgb[1] + 7471U * rgb[2] + 32768U) >> 16U);
}

std::size_t countOf(Channels channels) { return channels == Channels::grey ? 1 : 3; }

template <class T>
void convertRow(const std::vector<std::uint8_t>& levels, std::size_t y, const TensorSpec& spec, const T* tables, T* tensor) {
  if (spec.channels == Channels::grey) {
    T* to = tensor + y * spec.width;
    for (std::size_t x = 0; x < spec.width; x += 1) to[x] = tables[lumaOf(&levels[3 * x])];
    return;
  }
  const std::size_t plane = spec.interleaved ? 1 : spec.width * spec.height;
  const std::size_t step = spec.interleaved ? 3 : 1;
  for (std::size_t c = 0; c < 3; c += 1) {
    const std::uint8_t* from = &levels[spec.channels == Channels::bgr ? 2 - c : c];
    const T* table = tables + 256 * c;
    T* to = tensor + c * plane + y * spec.width * step;
    for (std::size_t x = 0; x < spec.width; x += 1) to[step * x] = table[from[3 * x]];
  }
}

template <class T>
void fill(const Pixels& pixels, const TensorSpec& spec, const void* tables, void* tensor) {
  const auto& [part, target, width, height, padColor, channels, interleaved] = spec;
  const std::vector<Weights> across = weightsOf(part.width, target.width);
  const std::vector<Weights> down = weightsOf(part.height, target.height);
  std::vector<double> sums(3 * part.width);
  std::vector<std::uint8_t> padding(3 * width);
  for (std::size_t i = 0; i < padding.size(); i += 1) padding[i] = padColor[i % 3];
  std::vector<std::uint8_t> levels;
  for (std::size_t y = 0; y < height; y += 1) {
    levels = padding;
    if (y >= target.top && y - target.top < target.height) {
      addRows(pixels.data + 3 * (part.top * pixels.width + part.left), 3 * pixels.width, down[y - target.top], sums);
      addColumns(sums, across, &levels[3 * target.left]);
    }
    convertRow(levels, y, spec, static_cast<const T*>(tables), static_cast<T*>(tensor));
  }
}

// A size of its own, and sums that cannot overflow.
bool fits(const Rectangle& inner, std::size_t width, std::size_t height) {
  return inner.width > 0 && inner.height > 0 && inner.left <= width && inner.width <= width - inner.left && inner.top <= height &&
         inner.height <= height - inner.top;
}

// Vector instructions, as above: most scores of a detector reach nothing.
bool anyReaches(const float* scores, std::size_t count, float least) {
  int any = 0;
  for (std::size_t i = 0; i < count; i += 1) any |= scores[i] >= least ? 1 : 0;
  return any != 0;
}

constexpr float infinity = std::numeric_limits<float>::infinity();

struct Box {
  double left;
  double top;
  double right;
  double bottom;
  double area;
};

Box boxAt(const float* at) {
  const double left = at[0];
  const double top = at[1];
  const double right = at[2];
  const double bottom = at[3];
  return {left, top, right, bottom, (right - left) * (bottom - top)};
}

double intersectionOverUnion(const Box& a, const Box& b) {
  const double width = std::max(0.0, std::min(a.right, b.right) - std::max(a.left, b.left));
  const double height = std::max(0.0, std::min(a.bottom, b.bottom) - std::max(a.top, b.top));
  const double all = a.area + b.area - width * height;
  return all > 0 ? (width * height) / all : 0;
}

}  // namespace

std::vector<std::uint32_t> bestOf(Span<float> scores, double threshold, std::size_t max) {
  if (max == 0) return {};
  // The least 32-bit float that reaches it. A score of −∞ is none.
  float least = static_cast<float>(threshold);
  if (static_cast<double>(least) < threshold) least = std::nextafter(least, infinity);
  least = std::max(least, std::numeric_limits<float>::lowest());
  std::vector<std::uint32_t> indices;
  const auto better = [&scores](std::uint32_t a, std::uint32_t b) {
    return scores.data[a] > scores.data[b] || (scores.data[a] == scores.data[b] && a < b);
  };
  const auto cut = [&] {
    std::nth_element(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(max - 1), indices.end(), better);
    indices.resize(max);
  };
  constexpr std::size_t blockMax = 256;
  for (std::size_t start = 0; start < scores.count; start += blockMax) {
    const std::size_t end = std::min(scores.count, start + blockMax);
    if (!anyReaches(scores.data + start, end - start, least)) continue;
    for (std::size_t i = start; i < end; i += 1) {
      if (!(scores.data[i] >= least)) continue;
      indices.push_back(static_cast<std::uint32_t>(i));
      // A model can make a candidate of everything. What comes after the best so far has to be better than the last of them.
      if (indices.size() < 4 * max) continue;
      cut();
      least = std::nextafter(scores.data[indices.back()], infinity);
    }
  }
  if (indices.size() > max) cut();
  std::sort(indices.begin(), indices.end(), better);
  return indices;
}

std::vector<std::uint32_t> suppress(Span<float> boxes, Span<std::uint32_t> candidates, std::size_t classCount, double iouMax,
                                    std::size_t boxesMax) {
  if (classCount == 0) throw std::runtime_error("There are no classes.");
  std::vector<std::uint32_t> kept;
  std::unordered_map<std::size_t, std::vector<Box>> byLabel;
  for (std::size_t n = 0; n < candidates.count && kept.size() < boxesMax; n += 1) {
    const std::size_t place = candidates.data[n] / classCount;
    if (place >= boxes.count / 4) throw std::runtime_error("A candidate has no box.");
    const Box box = boxAt(boxes.data + 4 * place);
    std::vector<Box>& better = byLabel[candidates.data[n] % classCount];
    const auto overlaps = [&](const Box& other) { return intersectionOverUnion(other, box) > iouMax; };
    if (std::any_of(better.begin(), better.end(), overlaps)) continue;
    better.push_back(box);
    kept.push_back(candidates.data[n]);
  }
  return kept;
}

void fillTensor(const Pixels& pixels, const TensorSpec& spec, const Elements& tables, const Elements& tensor) {
  const std::size_t height = pixels.width == 0 ? 0 : pixels.bytes / 3 / pixels.width;
  if (!fits(spec.part, pixels.width, height)) throw std::runtime_error("The part does not lie in the image.");
  if (!fits(spec.target, spec.width, spec.height)) throw std::runtime_error("The target does not lie in the tensor.");
  const std::size_t channels = countOf(spec.channels);
  if (tensor.count != channels * spec.width * spec.height) throw std::runtime_error("The tensor has another length than its shape.");
  if (tables.count != channels * 256 || tables.elementBytes != tensor.elementBytes) {
    throw std::runtime_error("The tables are not those of the tensor.");
  }
  if (tensor.elementBytes == 1) fill<std::uint8_t>(pixels, spec, tables.data, tensor.data);
  else if (tensor.elementBytes == 2) fill<std::uint16_t>(pixels, spec, tables.data, tensor.data);
  else if (tensor.elementBytes == 4) fill<std::uint32_t>(pixels, spec, tables.data, tensor.data);
  else fill<std::uint64_t>(pixels, spec, tables.data, tensor.data);
}

}  // namespace whetstone
