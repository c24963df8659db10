/* The sketch on a PC: SKETCH names its file. */
#include "Arduino.h"
#include SKETCH

int main() {
    ina219_reset(&chip);
    setup();
    for (;;)
        loop();
}
