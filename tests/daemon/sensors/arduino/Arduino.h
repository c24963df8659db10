/* As much of Arduino's core as the sketch uses, for a PC: time passes in delay() alone, Serial is standard output. */
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "ina219.h"

inline ina219 chip;

inline void delay(unsigned long milliseconds) { ina219_pass(&chip, (double)milliseconds); }

struct {
    void begin(unsigned long) {}
    size_t write(const uint8_t *bytes, size_t count) { return fwrite(bytes, 1, count, stdout); }
} inline Serial;
