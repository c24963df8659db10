/* An INA219 as its data sheet (TI SBOS448) has it, as far as a meter sees it: registers behind I2C bytes, and time.
 * What it measures comes from standard input, one measurement a line: millivolts and microvolts of bus and shunt, or
 * "gone" for as long as a measurement takes, when the chip does not answer. At the end of input the program ends. */
#ifndef INA219_H
#define INA219_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    uint16_t registers[6];
    uint8_t selected, bytes; /* of a write, after the address */
    uint16_t written;
    uint8_t low_next; /* of a read */
    double ready_in_ms;
    int millivolts, microvolts, gone;
} ina219;

/* Microseconds of a conversion by its four bits: table 5 of the data sheet. */
static double ina219_conversion_us(unsigned bits) {
    static const double few[] = {84, 148, 276, 532};
    return bits & 8 ? 532.0 * (1u << (bits & 7)) : few[bits & 3];
}

static void ina219_begin(ina219 *chip) {
    const unsigned settings = chip->registers[0];
    chip->ready_in_ms = (ina219_conversion_us(settings >> 7 & 15) + ina219_conversion_us(settings >> 3 & 15)) / 1000;
}

/* The next line of input. */
static void ina219_next(ina219 *chip) {
    char text[64];
    if (fgets(text, sizeof text, stdin) == NULL) {
        fflush(stdout);
        exit(0);
    }
    chip->gone = sscanf(text, "%d %d", &chip->millivolts, &chip->microvolts) != 2;
}

static void ina219_reset(ina219 *chip) {
    const ina219 fresh = {{0x399F, 0, 0, 0, 0, 0}, 0, 0, 0, 0, 0.0, 0, 0, 0};
    *chip = fresh;
    ina219_next(chip);
    ina219_begin(chip);
}

static void ina219_pass(ina219 *chip, double milliseconds) {
    chip->ready_in_ms -= milliseconds;
    if (chip->ready_in_ms > 0)
        return;
    if (!chip->gone) {
        const int steps = chip->microvolts / 10;
        chip->registers[1] = (uint16_t)(steps > 32000 ? 32000 : steps < -32000 ? -32000 : steps);
        chip->registers[2] = (uint16_t)(chip->millivolts / 4 << 3 | 2);
    }
    ina219_next(chip);
    ina219_begin(chip);
}

static void ina219_start(ina219 *chip) { chip->bytes = 0, chip->low_next = 0; }

static void ina219_write(ina219 *chip, uint8_t byte) {
    if (chip->bytes++ == 0) {
        chip->selected = byte % 6;
        return;
    }
    chip->written = (uint16_t)(chip->written << 8 | byte);
    if (chip->bytes == 3 && (chip->selected == 0 || chip->selected == 5)) {
        chip->registers[chip->selected] = chip->written;
        if (chip->selected == 0) {
            chip->registers[2] &= (uint16_t)~2u;
            ina219_begin(chip);
        }
    }
}

static uint8_t ina219_read(ina219 *chip) {
    const uint16_t value = chip->registers[chip->selected];
    chip->low_next = !chip->low_next;
    if (chip->low_next)
        return (uint8_t)(value >> 8);
    if (chip->selected == 3)
        chip->registers[2] &= (uint16_t)~2u;
    return (uint8_t)value;
}
#endif
