"""playpen: pick the training data that makes a language model better, and say why each example was picked."""
