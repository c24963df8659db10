/* Arduino's I2C, with the simulated chip alone on it, at 0x40. */
#pragma once
#include "Arduino.h"

struct {
    bool here;
    void begin() {}
    void beginTransmission(uint8_t address) {
        here = address == 0x40 && !chip.gone;
        ina219_start(&chip);
    }
    void write(uint8_t byte) {
        if (here)
            ina219_write(&chip, byte);
    }
    uint8_t endTransmission() { return here ? 0 : 2; }
    uint8_t requestFrom(uint8_t address, uint8_t count) {
        beginTransmission(address);
        return here ? count : 0;
    }
    int read() { return here ? ina219_read(&chip) : -1; }
} inline Wire;
