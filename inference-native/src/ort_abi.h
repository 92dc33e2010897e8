// The part of ONNX Runtime's C interface that onnxruntime.cpp and ort_providers.cpp use. Its only exported function gives a table of functions, whose order never
// changes: new ones are appended. So a function is its position in the table and its signature, and the library that onnxruntime-node ships
// needs no header. The C++ tests call every function that is listed here: a wrong position fails there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace whetstone::ort {

struct Allocator;
struct CudaProviderOptions;
struct Env;
struct MemoryInfo;
struct RunOptions;
struct Session;
struct SessionOptions;
struct Status;
struct TensorRtProviderOptions;
struct TensorTypeAndShapeInfo;
struct TypeInfo;
struct Value;

using Table = void* const*;

// What `OrtGetApiBase` gives.
struct ApiBase {
  Table (*getApi)(std::uint32_t version);
  const char* (*getVersionString)();
};

// A library that serves this version serves every later one too. 22 is that of ONNX Runtime 1.22.
constexpr std::uint32_t apiVersion = 22;

constexpr int loggingLevelFatal = 4;
constexpr int optimizationsNone = 0;
constexpr int optimizationsAll = 99;
constexpr int allocatorTypeDevice = 0;
constexpr int memoryTypeDefault = 0;

template <class Signature>
struct Function {
  std::size_t position;
};

// They give null, or a status with what is wrong.
template <class... Arguments>
using Fallible = Function<Status*(Arguments...)>;

constexpr Function<const char*(const Status*)> GetErrorMessage{2};
constexpr Fallible<int, const char*, Env**> CreateEnv{3};
constexpr Fallible<const Env*> DisableTelemetryEvents{6};
constexpr Fallible<const Env*, const char*, const SessionOptions*, Session**> CreateSession{7};
constexpr Fallible<Session*, const RunOptions*, const char* const*, const Value* const*, std::size_t, const char* const*, std::size_t, Value**>
    RunSession{9};
constexpr Fallible<SessionOptions**> CreateSessionOptions{10};
constexpr Fallible<SessionOptions*, int> SetSessionLogSeverityLevel{22};
constexpr Fallible<SessionOptions*, int> SetSessionGraphOptimizationLevel{23};
constexpr Fallible<SessionOptions*, int> SetIntraOpNumThreads{24};
constexpr Fallible<SessionOptions*, int> SetInterOpNumThreads{25};
constexpr Fallible<const Session*, std::size_t*> SessionGetInputCount{30};
constexpr Fallible<const Session*, std::size_t*> SessionGetOutputCount{31};
constexpr Fallible<const Session*, std::size_t, TypeInfo**> SessionGetInputTypeInfo{33};
constexpr Fallible<const Session*, std::size_t, TypeInfo**> SessionGetOutputTypeInfo{34};
constexpr Fallible<const Session*, std::size_t, Allocator*, char**> SessionGetInputName{36};
constexpr Fallible<const Session*, std::size_t, Allocator*, char**> SessionGetOutputName{37};
constexpr Fallible<RunOptions**> CreateRunOptions{39};
constexpr Fallible<RunOptions*> RunOptionsSetTerminate{46};
constexpr Fallible<const MemoryInfo*, void*, std::size_t, const std::int64_t*, std::size_t, int, Value**> CreateTensorWithDataAsOrtValue{49};
constexpr Fallible<Value*, void**> GetTensorMutableData{51};
constexpr Fallible<const TypeInfo*, const TensorTypeAndShapeInfo**> CastTypeInfoToTensorInfo{55};
constexpr Fallible<const TensorTypeAndShapeInfo*, int*> GetTensorElementType{60};
constexpr Fallible<const TensorTypeAndShapeInfo*, std::size_t*> GetDimensionsCount{61};
constexpr Fallible<const TensorTypeAndShapeInfo*, std::int64_t*, std::size_t> GetDimensions{62};
constexpr Fallible<const TensorTypeAndShapeInfo*, const char**, std::size_t> GetSymbolicDimensions{63};
constexpr Fallible<const Value*, TensorTypeAndShapeInfo**> GetTensorTypeAndShape{65};
constexpr Fallible<int, int, MemoryInfo**> CreateCpuMemoryInfo{69};
constexpr Fallible<Allocator*, void*> AllocatorFree{76};
constexpr Fallible<Allocator**> GetAllocatorWithDefaultOptions{78};
constexpr Function<void(Status*)> ReleaseStatus{93};
constexpr Function<void(Session*)> ReleaseSession{95};
constexpr Function<void(Value*)> ReleaseValue{96};
constexpr Function<void(RunOptions*)> ReleaseRunOptions{97};
constexpr Function<void(TypeInfo*)> ReleaseTypeInfo{98};
constexpr Function<void(TensorTypeAndShapeInfo*)> ReleaseTensorTypeAndShapeInfo{99};
constexpr Function<void(SessionOptions*)> ReleaseSessionOptions{100};
constexpr Fallible<char***, int*> GetAvailableProviders{125};
constexpr Fallible<char**, int> ReleaseAvailableProviders{126};
constexpr Fallible<RunOptions*, const char*, const char*> AddRunConfigEntry{165};
constexpr Fallible<SessionOptions*, const TensorRtProviderOptions*> AppendTensorRtProvider{170};
constexpr Fallible<TensorRtProviderOptions**> CreateTensorRtProviderOptions{171};
constexpr Fallible<TensorRtProviderOptions*, const char* const*, const char* const*, std::size_t> UpdateTensorRtProviderOptions{172};
constexpr Function<void(TensorRtProviderOptions*)> ReleaseTensorRtProviderOptions{174};
constexpr Fallible<SessionOptions*, const CudaProviderOptions*> AppendCudaProvider{204};
constexpr Fallible<CudaProviderOptions**> CreateCudaProviderOptions{205};
constexpr Fallible<CudaProviderOptions*, const char* const*, const char* const*, std::size_t> UpdateCudaProviderOptions{206};
constexpr Function<void(CudaProviderOptions*)> ReleaseCudaProviderOptions{208};

}  // namespace whetstone::ort
