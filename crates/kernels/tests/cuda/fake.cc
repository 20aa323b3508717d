// CUDA's driver and NVRTC in one library, for a machine without a GPU: NVRTC compiles to a shared library for the CPU, behind
// `emulate.hpp`, and the driver runs that. With it everything runs that runs on a GPU but the GPU: the search for the
// libraries, the options, the cache, modules, arguments, memory, events, and errors that stay.
//
// Functions are declared as in cuda.h and nvrtc.h, pointers to what is opaque as void*. EMULATOR: the path of `emulate.hpp`.
#include <dlfcn.h>
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {

std::mutex one_at_a_time;
// The error of a launch, which every later call reports, as on a GPU.
int sticky = 0;
thread_local int depth = 0;
int context;

std::string folder() {
    char name[] = "/tmp/fake-cuda-XXXXXX";
    return mkdtemp(name) ? name : "";
}

void drop(const std::string& folder) { (void)!system(("rm -rf " + folder).c_str()); }

std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
}

void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

// Whether a call may go on: in a context, and before any kernel failed.
int answer() { return depth < 1 ? 201 : sticky; }

struct Program {
    std::string source, log, image;
    std::vector<std::pair<std::string, std::string>> headers;
};

// More than any kernel's argument; by value, as a kernel takes it.
struct Argument {
    char bytes[1024];
};

struct Module {
    void* library;
};

struct Kernel {
    void* library;
    void (*run)(Argument);
    int shared = 48 << 10;
};

struct Launched {
    Kernel* kernel;
    const Argument* argument;
};

struct Recorded {
    Kernel* kernel;
    Argument argument;
    unsigned grid[3], block[3], shared;
};

// What a stream that records has; streams that do not are all one.
struct Stream {
    bool records = false;
    std::vector<Recorded> launches;
};

void call(const void* launched) {
    const Launched& it = *(const Launched*)launched;
    it.kernel->run(*it.argument);
}

// Executes a launch.
void execute(Kernel& kernel, const unsigned* grid, const unsigned* block, unsigned shared, const Argument* argument) {
    std::lock_guard<std::mutex> guard(one_at_a_time);
    typedef const char* (*Start)(void (*)(const void*), const void*, const unsigned*, const unsigned*, size_t, uint64_t, int);
    auto start = (Start)dlsym(kernel.library, "emulate_launch");
    Launched launched = {&kernel, argument};
    const char* error = start(call, &launched, grid, block, shared, 0, 1);
    // FAKE_FAULT: the number of a launch that is to fail.
    static long launches = 0;
    const char* fault = getenv("FAKE_FAULT");
    if (fault && ++launches == atol(fault)) error = "a fault that was asked for";
    if (!error) return;
    fprintf(stderr, "%s\n", error);
    sticky = 700;
}

}  // namespace

extern "C" {

// ---- NVRTC ---------------------------------------------------------------------------------------------------------

int nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, 0; }
int nvrtcGetNumSupportedArchs(int* count) { return *count = 3, 0; }
int nvrtcGetSupportedArchs(int* archs) { return archs[0] = 80, archs[1] = 90, archs[2] = 100, 0; }
const char* nvrtcGetErrorString(int) { return "fake error"; }

int nvrtcCreateProgram(void** to, const char* source, const char*, int count, const char* const* headers, const char* const* names) {
    Program* program = new Program{source, "", "", {}};
    for (int i = 0; i < count; i++) program->headers.push_back({names[i], headers[i]});
    *to = program;
    return 0;
}

int nvrtcDestroyProgram(void** program) {
    delete (Program*)*program;
    *program = nullptr;
    return 0;
}

int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
    Program& program = *(Program*)handle;
    std::string in = folder(), macros;
    for (auto& [name, text] : program.headers) write(in + "/" + name, text);
    write(in + "/source.cu", program.source);
    bool architecture = false;
    for (int i = 0; i < count; i++) {
        if (!strncmp(options[i], "-D", 2)) macros += std::string(" ") + options[i];
        architecture |= !strcmp(options[i], "--gpu-architecture=sm_90");
    }
    const char* compiler = getenv("CXX");
    std::string command = std::string(compiler ? compiler : "c++") +
        " -std=c++17 -O1 -fPIC -shared -ffp-contract=off -fno-strict-aliasing -U_FORTIFY_SOURCE -w";
#ifdef __FMA__
    command += " -mfma";
#endif
    command += " -include " EMULATOR " -I " + in + macros + " -x c++ " + in + "/source.cu -o " + in + "/out.so 2>" + in + "/log";
    int status = architecture ? system(command.c_str()) : 1;
    program.log = architecture ? read(in + "/log") : "the architecture is not that of the fake GPU";
    program.image = read(in + "/out.so");
    drop(in);
    return status ? 6 : 0;
}

int nvrtcGetProgramLogSize(void* program, size_t* size) { return *size = ((Program*)program)->log.size() + 1, 0; }
int nvrtcGetProgramLog(void* program, char* to) { return strcpy(to, ((Program*)program)->log.c_str()), 0; }
int nvrtcGetCUBINSize(void* program, size_t* size) { return *size = ((Program*)program)->image.size(), 0; }
int nvrtcGetCUBIN(void* program, char* to) {
    const std::string& image = ((Program*)program)->image;
    return memcpy(to, image.data(), image.size()), 0;
}

// ---- the driver: devices and modules -------------------------------------------------------------------------------

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGet(int* device, int index) { return *device = index, 0; }
int cuDeviceGetName(char* to, int size, int) { return snprintf(to, size, "Emulated GPU"), 0; }
int cuDeviceGetAttribute(int* value, int which, int) {
    *value = which == 75 ? 9 : which == 76 ? 0 : which == 16 ? 4 : which == 97 ? 227 << 10 : which == 13 ? 1000000 : -1;
    return *value < 0 ? 1 : 0;
}
int cuDevicePrimaryCtxRetain(void** to, int) { return *to = &context, 0; }
int cuCtxPushCurrent_v2(void* of) { return of == &context ? depth++, 0 : 201; }
int cuCtxPopCurrent_v2(void** of) { return *of = &context, depth--, 0; }
int cuGetErrorString(int code, const char** to) {
    *to = code == 201 ? "no context" : code == 700 ? "an illegal address" : code == 1 ? "an invalid value" : "fake error";
    return 0;
}

int cuModuleLoadData(void** to, const void* image) {
    if (answer()) return answer();
    const Elf64_Ehdr& header = *(const Elf64_Ehdr*)image;
    std::string in = folder(), path = in + "/module.so";
    write(path, std::string((const char*)image, header.e_shoff + (size_t)header.e_shnum * header.e_shentsize));
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) fprintf(stderr, "%s\n", dlerror());
    drop(in);
    *to = new Module{library};
    return library ? 0 : 200;
}

int cuModuleUnload(void* module) {
    dlclose(((Module*)module)->library);
    delete (Module*)module;
    return 0;
}

int cuModuleGetFunction(void** to, void* module, const char* name) {
    void* library = ((Module*)module)->library;
    auto run = (void (*)(Argument))dlsym(library, name);
    *to = new Kernel{library, run};
    return run ? 0 : 500;
}

int cuFuncSetAttribute(void* kernel, int which, int value) {
    if (which != 8 || value > 227 << 10) return 1;
    ((Kernel*)kernel)->shared = value;
    return answer();
}

int cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void* on, void** arguments, void**) {
    if (answer()) return answer();
    Kernel& kernel = *(Kernel*)handle;
    // What static shared memory a kernel has counts, too; no fewer than it may ask for.
    if ((int)shared > kernel.shared || gy > 65535 || gz > 65535 || gx == 0 || gy == 0 || gz == 0) return 1;
    const Argument* argument = (const Argument*)arguments[0];
    Recorded launch = {&kernel, *argument, {gx, gy, gz}, {bx, by, bz}, shared};
    if (on && ((Stream*)on)->records) return ((Stream*)on)->launches.push_back(launch), 0;
    // A launch is under way when the call returns: an error shows later.
    execute(kernel, launch.grid, launch.block, shared, argument);
    return 0;
}

// ---- streams and graphs --------------------------------------------------------------------------------------------

int cuStreamCreate(void** to, unsigned) { return *to = new Stream, answer(); }
int cuStreamDestroy_v2(void* stream) { return delete (Stream*)stream, 0; }
int cuStreamBeginCapture_v2(void* stream, int) {
    Stream& it = *(Stream*)stream;
    if (answer() || it.records) return answer() ? answer() : 900;
    it.records = true;
    return 0;
}
int cuStreamEndCapture(void* stream, void** graph) {
    Stream& it = *(Stream*)stream;
    *graph = new std::vector<Recorded>;
    if (!it.records) return 900;
    it.records = false;
    ((std::vector<Recorded>*)*graph)->swap(it.launches);
    return answer();
}
int cuGraphInstantiateWithFlags(void** to, void* graph, unsigned long long) {
    return *to = new std::vector<Recorded>(*(std::vector<Recorded>*)graph), answer();
}
int cuGraphLaunch(void* graph, void*) {
    if (answer()) return answer();
    for (Recorded& it : *(std::vector<Recorded>*)graph) execute(*it.kernel, it.grid, it.block, it.shared, &it.argument);
    return 0;
}
int cuGraphExecDestroy(void* graph) { return delete (std::vector<Recorded>*)graph, 0; }
int cuGraphDestroy(void* graph) { return delete (std::vector<Recorded>*)graph, 0; }

// ---- memory and events ---------------------------------------------------------------------------------------------

int cuMemAlloc_v2(unsigned long long* to, size_t size) {
    if (answer() || size == 0) return answer() ? answer() : 1;
    void* at = aligned_alloc(256, (size + 255) / 256 * 256);
    *to = (unsigned long long)at;
    return at ? 0 : 2;
}
int cuMemFree_v2(unsigned long long at) { return free((void*)at), answer(); }
int cuMemcpyHtoD_v2(unsigned long long to, const void* from, size_t size) { return answer() ? answer() : (memcpy((void*)to, from, size), 0); }
int cuMemcpyDtoH_v2(void* to, unsigned long long from, size_t size) { return answer() ? answer() : (memcpy(to, (void*)from, size), 0); }
int cuMemcpyDtoD_v2(unsigned long long to, unsigned long long from, size_t size) {
    return answer() ? answer() : (memcpy((void*)to, (void*)from, size), 0);
}
int cuMemsetD8_v2(unsigned long long to, unsigned char value, size_t size) { return answer() ? answer() : (memset((void*)to, value, size), 0); }
int cuCtxSynchronize() { return answer(); }
int cuEventCreate(void** to, unsigned) { return *to = new timespec{}, answer(); }
int cuEventRecord(void* event, void*) { return clock_gettime(CLOCK_MONOTONIC, (timespec*)event), answer(); }
int cuEventElapsedTime(float* to, void* from, void* until) {
    const timespec &a = *(timespec*)from, &b = *(timespec*)until;
    *to = (float)((double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6);
    return answer();
}
int cuEventDestroy_v2(void* event) { return delete (timespec*)event, 0; }

}
