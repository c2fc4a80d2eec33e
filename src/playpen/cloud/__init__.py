"""The launcher `sagemaker`: entries of a plan made in a training job on Amazon SageMaker, and brought home sealed."""
