"""Teaches the assistant a class of devices that it does not know, from 50 sentences, by a LoRA adapter."""
