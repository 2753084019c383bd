"""``python -m radpref``, and so ``torchrun -m radpref`` and ``accelerate launch -m radpref``."""

from radpref.cli import app

if __name__ == "__main__":
    app(prog_name="radpref")
