# cython: language_level=3, binding=True, freethreading_compatible=True
"""What this CPU supports, and which OpenMP runtime the kernels were linked with.

Compiled with the flags of the baseline, so that it can be imported on every CPU of the target: only
after it has said yes may a module with more flags be imported (the initialisation of a module is
compiled with its flags, too).
"""

cdef extern from *:
    r"""
    #include <cstddef>
    #include <cstring>

    namespace {

    /* One row per feature: where cpuid reports it, and the registers the operating system has to
       save for it. */
    struct Feature {
        const char *name;
        unsigned leaf, subleaf, reg, bit;
        unsigned state;
    };

    enum : unsigned { EAX, EBX, ECX, EDX };
    constexpr unsigned none = 0, ymm = 0x06, zmm = 0xe6;

    constexpr Feature features[] = {
    #if defined(__x86_64__)
        {"sse2", 1, 0, EDX, 26, none},
        {"sse3", 1, 0, ECX, 0, none},
        {"ssse3", 1, 0, ECX, 9, none},
        {"sse4.1", 1, 0, ECX, 19, none},
        {"sse4.2", 1, 0, ECX, 20, none},
        {"popcnt", 1, 0, ECX, 23, none},
        {"movbe", 1, 0, ECX, 22, none},
        {"lzcnt", 0x80000001u, 0, ECX, 5, none},
        {"bmi1", 7, 0, EBX, 3, none},
        {"bmi2", 7, 0, EBX, 8, none},
        {"avx", 1, 0, ECX, 28, ymm},
        {"f16c", 1, 0, ECX, 29, ymm},
        {"fma", 1, 0, ECX, 12, ymm},
        {"avx2", 7, 0, EBX, 5, ymm},
        {"avx512f", 7, 0, EBX, 16, zmm},
        {"avx512bw", 7, 0, EBX, 30, zmm},
        {"avx512cd", 7, 0, EBX, 28, zmm},
        {"avx512dq", 7, 0, EBX, 17, zmm},
        {"avx512vl", 7, 0, EBX, 31, zmm},
        {"avx512_fp16", 7, 0, EDX, 23, zmm},
        {"avx512_bf16", 7, 1, EAX, 5, zmm},
    #elif defined(__aarch64__)
        {"neon", 0, 0, EAX, 0, none},
    #else
        {"generic", 0, 0, EAX, 0, none},
    #endif
    };
    constexpr int feature_count = sizeof features / sizeof features[0];

    } /* namespace */

    #if defined(__x86_64__)
    #include <cpuid.h>

    static unsigned saved_registers() {
        unsigned a, b, c, d, low, high;
        if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;  /* no OSXSAVE */
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return low;
    }

    static bool has_feature(const Feature &feature) {
        unsigned regs[4] = {0, 0, 0, 0};
        if (!__get_cpuid_count(feature.leaf, feature.subleaf, &regs[0], &regs[1], &regs[2],
                               &regs[3])) {
            return false;
        }
        return (regs[feature.reg] >> feature.bit & 1) &&
               (saved_registers() & feature.state) == feature.state;
    }
    #else
    static bool has_feature(const Feature &) { return true; }
    #endif

    static const char *feature_name(int i) { return features[i].name; }
    static bool feature_present(int i) { return has_feature(features[i]); }

    #if defined(__x86_64__)
    static const char *const target = "x86-64";
    #elif defined(__aarch64__)
    static const char *const target = "aarch64";
    #else
    static const char *const target = "other";
    #endif

    #ifdef _OPENMP
    #include <dlfcn.h>
    #include <omp.h>
    #include <pthread.h>
    static const int openmp_date = _OPENMP;

    static const char *openmp_file() {
        Dl_info info;
        void *symbol = reinterpret_cast<void *>(&omp_get_max_threads);
        return dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "";
    }

    /* A function of the very runtime that is linked: other copies may be loaded, too.
       Looked up by symbol because runtimes have had omp_pause_resource_all for longer than their
       _OPENMP date tells. */
    static void *openmp_symbol(const char *name) {
        void *library = dlopen(openmp_file(), RTLD_LAZY | RTLD_NOLOAD);
        if (!library) return nullptr;
        void *symbol = dlsym(library, name);
        dlclose(library);  /* only undoes the count of the dlopen above */
        return symbol;
    }

    static bool openmp_pause() {
        using Pause = int (*)(int);
        static const Pause pause = reinterpret_cast<Pause>(openmp_symbol("omp_pause_resource_all"));
        return pause && pause(1 /* omp_pause_soft */) == 0;
    }

    static int openmp_max_threads() { return omp_get_max_threads(); }
    static int openmp_processors() { return omp_get_num_procs(); }

    /* libgomp forgets in a forked child that its threads are gone, and would wait for them: they
       end before. A handler of the C library serves forks that Python does not know of, too. Other
       runtimes have their own handlers, within which they must not be called. */
    static void watch_forks() {
        if (!openmp_symbol("__kmpc_fork_call") && openmp_symbol("omp_pause_resource_all")) {
            pthread_atfork([] { openmp_pause(); }, nullptr, nullptr);
        }
    }
    #else
    static const int openmp_date = 0;
    static const char *openmp_file() { return ""; }
    static bool openmp_pause() { return false; }
    static int openmp_max_threads() { return 1; }
    static int openmp_processors() { return 1; }
    static void watch_forks() {}
    #endif
    """
    const char *target
    int feature_count
    const char *feature_name(int i) noexcept nogil
    bint feature_present(int i) noexcept nogil
    int openmp_date
    const char *openmp_file() noexcept nogil
    bint openmp_pause() noexcept nogil
    int openmp_max_threads() noexcept nogil
    int openmp_processors() noexcept nogil
    void watch_forks() noexcept nogil


# What a module compiled for an instruction set may use, beyond what every CPU of the target has.
# -march=x86-64-v3
_V3 = ("movbe", "lzcnt", "bmi1", "bmi2", "avx", "f16c", "fma", "avx2", "popcnt", "sse4.2")
_V4 = _V3 + ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")  # -march=x86-64-v4
_NEEDS = {"avx512": _V4, "avx2": _V3, "baseline": ()} if target == b"x86-64" else {"baseline": ()}

_OPENMP_VERSIONS = {
    200805: "3.0", 201107: "3.1", 201307: "4.0", 201511: "4.5",
    201811: "5.0", 202011: "5.1", 202111: "5.2", 202411: "6.0",
}

_features = [feature_name(i).decode() for i in range(feature_count) if feature_present(i)]


def features():
    """Names of the CPU's features that matter here."""
    return list(_features)


def isas():
    """The instruction sets that modules are written for on this target, best first."""
    return list(_NEEDS)


def missing(isa):
    """The features this CPU lacks to run the module `isa`; none if it may be imported."""
    return [name for name in _NEEDS[isa] if name not in _features]


def openmp():
    """Runtime and version of OpenMP, such as "libgomp.so.1 (OpenMP 4.5)", or None."""
    if not openmp_date:
        return None
    library = openmp_file().decode(errors="replace").rpartition("/")[2]
    return f"{library} (OpenMP {_OPENMP_VERSIONS.get(openmp_date, openmp_date)})"


def max_threads():
    """How many threads OpenMP would give to a parallel region of the calling thread."""
    return openmp_max_threads()


def processors():
    """How many CPUs OpenMP counts: those it found when loaded, if it binds threads to them."""
    return openmp_processors()


def pause_openmp():
    """Ends the worker threads of the calling thread; whether the runtime could and did."""
    return openmp_pause()


watch_forks()
