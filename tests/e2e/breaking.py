"""The check that keeps the API compatible bites: a field that was taken away is found."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def breaking(changed, against):
    command = ["buf", "breaking", str(changed), "--against", str(against)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


class Breaking(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rolecall-breaking-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for side in ("before", "after"):
            shutil.copytree(ROOT / "proto", self.folder / side / "proto")
            shutil.copy(ROOT / "buf.yaml", self.folder / side)

    def test_the_api_is_compatible_with_itself(self):
        done = breaking(self.folder / "after", self.folder / "before")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_removed_field_is_found_by_its_name(self):
        file = self.folder / "after" / "proto" / "rolecall" / "v1" / "permission.proto"
        text = file.read_text()
        self.assertIn("string permission = 3;", text)
        file.write_text(text.replace("string permission = 3;", "", 1))
        done = breaking(self.folder / "after", self.folder / "before")
        self.assertEqual(done.returncode, 100, done.stdout + done.stderr)
        self.assertIn('"permission"', done.stdout)


if __name__ == "__main__":
    unittest.main()
