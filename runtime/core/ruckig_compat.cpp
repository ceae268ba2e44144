// The ruckig wheel's static library is compiled by GCC 14, whose <iostream> leaves a reference to a marker that
// libstdc++ has had since GCC 13 ("initialise the standard streams"). Nothing calls it. An older libstdc++ initialises
// the streams by other means, so there the reference is answered here, visible to nobody else.
#include <version>

#if defined(_GLIBCXX_RELEASE) && _GLIBCXX_RELEASE < 13
extern "C" __attribute__((visibility("hidden"))) void memrt_no_library_init() __asm__("_ZSt21ios_base_library_initv");
extern "C" void memrt_no_library_init() {}
#endif
