"""The engines that run a pipeline: the choice of one, its presets and its promises."""
