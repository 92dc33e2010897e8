// The golden fixtures are checked by test/vision.preprocess.test.ts; this is about memory and threads, and values that can be seen at a glance.
#include "vision.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "check.h"

using namespace whetstone;

namespace {

// What a level becomes: itself, and the channel of the tensor.
template <class T>
std::vector<T> tablesOf() {
  std::vector<T> tables;
  for (std::size_t c = 0; c < 3; c += 1) {
    for (std::size_t level = 0; level < 256; level += 1) tables.push_back(static_cast<T>(sizeof(T) == 1 ? level : 1000 * c + level));
  }
  return tables;
}

template <class T>
std::vector<T> filled(const std::vector<std::uint8_t>& pixels, std::size_t width, const TensorSpec& spec) {
  const std::size_t channels = spec.channels == Channels::grey ? 1 : 3;
  std::vector<T> tables = tablesOf<T>();
  tables.resize(channels * 256);
  std::vector<T> tensor(channels * spec.width * spec.height);
  fillTensor({pixels.data(), pixels.size(), width}, spec, {tables.data(), tables.size(), sizeof(T)}, {tensor.data(), tensor.size(), sizeof(T)});
  return tensor;
}

TensorSpec stretch(std::size_t width, std::size_t height, std::size_t toWidth, std::size_t toHeight) {
  return {{0, 0, width, height}, {0, 0, toWidth, toHeight}, toWidth, toHeight, {9, 8, 7}, Channels::rgb, false};
}

void pixelsAreAveragedAndRoundedOnce() {
  CHECK(filled<std::uint8_t>({0, 10, 255, 1, 10, 255, 2, 11, 255, 3, 11, 255}, 2, stretch(2, 2, 1, 1)) == std::vector<std::uint8_t>({2, 11, 255}));
  CHECK(filled<std::uint8_t>({255, 255, 255}, 1, stretch(1, 1, 7, 5)) == std::vector<std::uint8_t>(105, 255));
}

template <class T>
void channelsAndLayoutsAreThoseAskedFor() {
  const std::vector<std::uint8_t> pixels{1, 2, 3, 4, 5, 6};
  TensorSpec spec = stretch(2, 1, 2, 1);
  const T green = static_cast<T>(sizeof(T) == 1 ? 0 : 1000);
  const T blue = static_cast<T>(2 * green);
  const auto sum = [](T base, int level) { return static_cast<T>(base + static_cast<T>(level)); };
  CHECK(filled<T>(pixels, 2, spec) == std::vector<T>({1, 4, sum(green, 2), sum(green, 5), sum(blue, 3), sum(blue, 6)}));
  spec.channels = Channels::bgr;
  spec.interleaved = true;
  CHECK(filled<T>(pixels, 2, spec) == std::vector<T>({3, sum(green, 2), sum(blue, 1), 6, sum(green, 5), sum(blue, 4)}));
}

void greyIsOneChannelAndKeepsItsLevel() {
  TensorSpec spec = stretch(4, 1, 4, 1);
  spec.channels = Channels::grey;
  CHECK(filled<float>({7, 7, 7, 255, 0, 0, 0, 255, 0, 255, 255, 255}, 4, spec) == std::vector<float>({7, 76, 150, 255}));
}

void aLetterboxIsPadded() {
  TensorSpec spec = stretch(1, 1, 3, 2);
  spec.target = {1, 1, 1, 1};
  spec.interleaved = true;
  CHECK(filled<std::uint8_t>({1, 2, 3}, 1, spec) == std::vector<std::uint8_t>({9, 8, 7, 9, 8, 7, 9, 8, 7, 9, 8, 7, 1, 2, 3, 9, 8, 7}));
}

// At each edge of memory that is no larger than it needs to be, also where a row has more values than a block.
void nothingBeyondThePartIsRead() {
  for (const std::size_t width : {std::size_t{5}, std::size_t{700}}) {
    std::vector<std::uint8_t> pixels(3 * width * 7, 200);
    TensorSpec spec = stretch(width, 7, 3, 4);
    CHECK(filled<float>(pixels, width, spec)[0] == 200.0F);
    spec.part = {width - 2, 5, 2, 2};
    for (std::size_t y = 5; y < 7; y += 1) {
      for (std::size_t i = 3 * width - 6; i < 3 * width; i += 1) pixels[3 * width * y + i] = 50;
    }
    const std::vector<float> tensor = filled<float>(pixels, width, spec);
    CHECK(tensor == filled<float>(std::vector<std::uint8_t>(12, 50), 2, stretch(2, 2, 3, 4)));
  }
}

void sizesThatDoNotFitAreRefused() {
  const std::vector<std::uint8_t> pixels(3 * 4 * 4);
  const auto refusal = [&pixels](const TensorSpec& spec) { return errorOf([&] { filled<float>(pixels, 4, spec); }); };
  CHECK(refusal(stretch(4, 4, 2, 2)).empty());
  CHECK(contains(refusal(stretch(4, 5, 2, 2)), "part"));
  CHECK(contains(refusal(stretch(5, 4, 2, 2)), "part"));
  CHECK(contains(refusal(stretch(0, 4, 2, 2)), "part"));
  TensorSpec spec = stretch(4, 4, 2, 2);
  spec.part.left = static_cast<std::size_t>(-2);
  CHECK(contains(refusal(spec), "part"));
  spec = stretch(4, 4, 2, 2);
  spec.target = {1, 0, 2, 2};
  CHECK(contains(refusal(spec), "target"));
  std::vector<float> tables = tablesOf<float>();
  std::vector<float> tensor(12);
  const auto refusalOf = [&](const Elements& given, const Elements& filledIn) {
    return errorOf([&] { fillTensor({pixels.data(), pixels.size(), 4}, stretch(4, 4, 2, 2), given, filledIn); });
  };
  CHECK(contains(refusalOf({tables.data(), 768, 4}, {tensor.data(), 11, 4}), "length"));
  CHECK(contains(refusalOf({tables.data(), 767, 4}, {tensor.data(), 12, 4}), "tables"));
  CHECK(contains(refusalOf({tables.data(), 768, 2}, {tensor.data(), 12, 4}), "tables"));
}

void threadsShareAnImage() {
  std::vector<std::uint8_t> pixels(3 * 60 * 40);
  for (std::size_t i = 0; i < pixels.size(); i += 1) pixels[i] = static_cast<std::uint8_t>(i * 37);
  const std::vector<float> expected = filled<float>(pixels, 60, stretch(60, 40, 32, 32));
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; n += 1) threads.emplace_back([&] { CHECK(filled<float>(pixels, 60, stretch(60, 40, 32, 32)) == expected); });
  for (std::thread& thread : threads) thread.join();
}

using Indices = std::vector<std::uint32_t>;

Indices best(const std::vector<float>& scores, double threshold, std::size_t max) { return bestOf({scores.data(), scores.size()}, threshold, max); }

void theBestScoresComeFirstAndOfEqualOnesTheFirst() {
  CHECK(best({0.5F, 0.1F, 0.9F, 0.5F}, 0.2, 10) == Indices({2, 0, 3}));
  CHECK(best({0.5F, 0.1F, 0.9F, 0.5F}, 0.5, 2) == Indices({2, 0}));
  CHECK(best({}, 0, 10).empty() && best({1.0F}, 0, 0).empty());
  const float none = -std::numeric_limits<float>::infinity();
  CHECK(best({none, std::nanf(""), 0.0F, -0.0F}, 0, 10) == Indices({2, 3}));
  // 0.1 lies between two 32-bit floats.
  CHECK(best({0.1F, std::nextafter(0.1F, 0.0F)}, 0.1, 10) == Indices({0}));
  std::vector<float> scores(1000);
  for (std::size_t i = 0; i < scores.size(); i += 1) scores[i] = static_cast<float>(i % 7);
  CHECK(best(scores, 0, 4) == Indices({6, 13, 20, 27}));
  const std::vector<float> equal(1000, 1.0F);
  CHECK(best(equal, 1, 3) == Indices({0, 1, 2}));
}

void aBetterBoxOfItsClassSuppresses() {
  const std::vector<float> boxes{0, 0, 10, 10, 1, 0, 11, 10, 20, 0, 30, 10};
  const auto kept = [&boxes](const Indices& candidates, std::size_t classes, double iouMax, std::size_t boxesMax) {
    return suppress({boxes.data(), boxes.size()}, {candidates.data(), candidates.size()}, classes, iouMax, boxesMax);
  };
  CHECK(kept({1, 0, 2}, 1, 0.5, 10) == Indices({1, 2}));
  CHECK(kept({1, 0, 2}, 1, 0.9, 10) == Indices({1, 0, 2}));
  CHECK(kept({1, 0, 2}, 1, 0.9, 2) == Indices({1, 0}));
  // The first two are of different classes.
  CHECK(kept({0, 3, 2}, 2, 0.5, 10) == Indices({0, 3}));
  CHECK(contains(errorOf([&] { kept({3}, 1, 0.5, 10); }), "no box"));
  CHECK(contains(errorOf([&] { kept({0}, 0, 0.5, 10); }), "no classes"));
}

}  // namespace

void testVision() {
  theBestScoresComeFirstAndOfEqualOnesTheFirst();
  aBetterBoxOfItsClassSuppresses();
  pixelsAreAveragedAndRoundedOnce();
  channelsAndLayoutsAreThoseAskedFor<std::uint8_t>();
  channelsAndLayoutsAreThoseAskedFor<std::uint16_t>();
  channelsAndLayoutsAreThoseAskedFor<float>();
  channelsAndLayoutsAreThoseAskedFor<double>();
  greyIsOneChannelAndKeepsItsLevel();
  aLetterboxIsPadded();
  nothingBeyondThePartIsRead();
  sizesThatDoNotFitAreRefused();
  threadsShareAnImage();
}
