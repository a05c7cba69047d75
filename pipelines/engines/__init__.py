"""The engines a pipeline runs on: presets, and what each promises."""
