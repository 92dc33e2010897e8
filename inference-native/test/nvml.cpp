// Against fake_nvml.cpp: CMake builds it whole, without what old drivers lack, and without what makes it NVML.
#include "nvml.h"

#include <cstdlib>

#include "check.h"

using namespace whetstone;

namespace {

std::string errorWith(const char* name, const char* value) {
  setenv(name, value, 1);
  const std::string error = errorOf([] { Nvml(FAKE_NVML).gpus(); });
  unsetenv(name);
  return error;
}

void gpusAreListedWithWhatTheyReport() {
  const Nvml nvml(FAKE_NVML);
  const std::vector<Gpu> gpus = nvml.gpus();
  CHECK(gpus.size() == 2 && gpus[0].uuid == "GPU-fake-0" && gpus[1].name == "Fake 1" && gpus[1].index == 1);
  const GpuState first = nvml.state(gpus[0]);
  CHECK(first.memoryTotalBytes == 8000000000 && first.memoryUsedBytes == 1000000000 && first.utilizationPercent == 37);
  CHECK(first.temperatureCelsius == 61 && first.powerMilliwatts == 93520 && first.throttleReasons == 0x4005);
  const GpuState second = nvml.state(gpus[1]);
  CHECK(!second.utilizationPercent && !second.temperatureCelsius && second.powerMilliwatts == 93520);
}

void whatAnOldDriverLacksIsMissing() {
  const Nvml nvml(OLD_NVML);
  const GpuState state = nvml.state(nvml.gpus()[0]);
  CHECK(state.utilizationPercent == 37 && !state.powerMilliwatts && !state.throttleReasons);
}

void aLibraryThatCannotBeUsedSaysWhy() {
  CHECK(contains(errorOf([] { Nvml("/there/is/none.so"); }), "cannot be loaded"));
  CHECK(contains(errorOf([] { Nvml nvml(NO_NVML); }), "is not NVML: it has no nvmlInit_v2"));
  CHECK(errorWith("FAKE_NVML_STATUS", "9") == "NVML failed: Driver Not Loaded.");
  CHECK(errorWith("FAKE_NVML_COUNT", "0") == "NVML lists no GPU.");
}

void aGpuThatIsLostIsLeftOut() {
  setenv("FAKE_NVML_LOST", "15", 1);
  const std::vector<Gpu> gpus = Nvml(FAKE_NVML).gpus();
  CHECK(gpus.size() == 1 && gpus[0].index == 1);
  setenv("FAKE_NVML_COUNT", "1", 1);
  CHECK(errorWith("FAKE_NVML_LOST", "15") == "NVML failed: GPU is lost.");
  unsetenv("FAKE_NVML_COUNT");
}

void aSamplerReadsOneGpuBetweenStartAndStop() {
  GpuSampler sampler(std::make_unique<Nvml>(FAKE_NVML), "GPU-fake-1", std::chrono::milliseconds(1));
  CHECK(!sampler.use().powerWatts && !sampler.use().memoryUsedBytesMax);
  for (int block = 0; block < 3; block += 1) {
    sampler.start();
    sampler.stop();
  }
  const GpuUse use = sampler.use();
  CHECK(use.powerWatts == 93.52 && use.memoryUsedBytesMax == 1000000000 && use.throttleReasons == 0x4005);
  CHECK(!use.utilizationPercent && !use.temperatureCelsiusMax);
  GpuSampler first(std::make_unique<Nvml>(FAKE_NVML), "", std::chrono::milliseconds(1));
  first.start();
  while (!first.use().utilizationPercent) std::this_thread::yield();
  CHECK(first.use().utilizationPercent == 37.0);
  CHECK(contains(errorOf([] { GpuSampler(std::make_unique<Nvml>(FAKE_NVML), "GPU-none", std::chrono::milliseconds(1)); }), "no GPU GPU-none"));
}

}  // namespace

void testNvml() {
  gpusAreListedWithWhatTheyReport();
  whatAnOldDriverLacksIsMissing();
  aLibraryThatCannotBeUsedSaysWhy();
  aGpuThatIsLostIsLeftOut();
  aSamplerReadsOneGpuBetweenStartAndStop();
}
