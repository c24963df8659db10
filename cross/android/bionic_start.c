/* bionic_start.c - where a program for Android begins: it hands the kernel's argument block to libc, which calls main().
 * EB_API_LEVEL is the oldest Android that it is for; the note tells the loader. */
int main(int argc, char **argv, char **environment);
void __libc_init(void *arguments, void (*on_exit)(void), int (*program)(int, char **, char **),
                 const void *structors) __attribute__((noreturn));
void eb_start(void *arguments) __attribute__((noreturn, used, visibility("hidden")));

void eb_start(void *arguments) {
    static void (*const *const no_structors[3])(void); /* of its own: before, at the start, at the end */
    __libc_init(arguments, 0, main, no_structors);
}

__asm__(".text\n"
        ".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
        "    mov x29, #0\n" /* the end of every backtrace */
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    b eb_start\n"
        ".size _start, . - _start\n");

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
__asm__(".pushsection .note.android.ident, \"a\", %note\n"
        ".balign 4\n"
        ".long 8, 4, 1\n" /* bytes of the name, bytes of the content, type: identity */
        ".asciz \"Android\"\n"
        ".long " TEXT(EB_API_LEVEL) "\n"
        ".popsection\n");
