"""The standard's test structure; a plugin's tests derive from it and say how to make the plugin."""

from __future__ import annotations

import unittest
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig
    from inference_pio.plugin.base import ModelPlugin


class StandardModelTest(ABC, unittest.TestCase):
    """Initialisation, loading, inference, generation and cleanup of one plugin."""

    @abstractmethod
    def create_plugin(self) -> ModelPlugin:
        """The plugin under test, knowing which model to load where it is given no configuration."""

    @abstractmethod
    def get_config(self) -> BaseModelConfig:
        """The configuration it is initialised with."""

    def setUp(self) -> None:
        self.plugin = self.create_plugin()
        self.config = self.get_config()

    def test_initialization(self) -> None:
        self.assertTrue(self.plugin.initialize(config=self.config))

    def test_model_loading(self) -> None:
        self.assertIsNotNone(self.plugin.load_model())

    def test_inference(self) -> None:
        self.assertIsNotNone(self.plugin.infer("Test input"))

    def test_generation(self) -> None:
        self.assertIsInstance(self.plugin.generate_text("Test prompt"), str)

    def test_cleanup(self) -> None:
        self.assertTrue(self.plugin.cleanup())

    def tearDown(self) -> None:
        self.plugin.cleanup()
