"""Pastes the calls of the README, and of the welcome, into a shell and compares what it shows.

A block after `<!-- run -->` is pasted. If a `text` block follows, its lines appear in that order in
what the block printed; `…` ends what is compared. The key, the address and the folder of mails are
those of the server."""

import pathlib
import re
import subprocess
import unittest

from clients import Server

README = pathlib.Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^<!-- run -->\n```sh\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.M | re.S)
END = "--- end of block, status "


class Readme(unittest.TestCase):
    def test_its_calls_answer_as_it_says(self):
        blocks = BLOCK.findall(README.read_text())
        self.assertGreater(len(blocks), 4, "the README has blocks to run")
        server = Server()
        self.addCleanup(server.forget)
        script = "".join(
            f"{commands}\necho '{END}'$?\n" for commands, _ in blocks)
        for written, real in (("127.0.0.1:50051", server.grpc), ("rck_…", server.api_key),
                              (".dev/mail", server.ready["mail_dir"])):
            self.assertIn(written, script, "the README and this test use the same placeholder")
            script = script.replace(written, real)
        ran = subprocess.run(
            ["bash", "-o", "pipefail"], input=script, cwd=README.parent, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        outputs = re.split(f"^{END}", ran.stdout, flags=re.M)
        self.assertEqual(len(outputs), len(blocks) + 1, ran.stdout)
        for n, ((commands, shown), output) in enumerate(zip(blocks, outputs)):
            output = output if n == 0 else output.split("\n", 1)[1]
            status = outputs[n + 1].split("\n", 1)[0]
            told = f"\n{commands}\nprinted\n{output}"
            with self.subTest(commands.strip().splitlines()[-1]):
                self.assertEqual(status == "0", "Code:" not in shown, told)
                if "Code:" not in shown:
                    self.assertNotIn("ERROR:", output, told)
                at = 0
                for line in shown.splitlines():
                    wanted = line.strip().rstrip("…")
                    at = output.find(wanted, at)
                    self.assertGreaterEqual(at, 0, f"`{line}` is not in the answer:{told}")
                    at += len(wanted)

    def test_the_calls_of_the_welcome_work_also_after_a_restart(self):
        server = Server()
        self.addCleanup(server.forget)
        self.assertEqual(server.stop()[0], 0)
        welcome = server.restart_with_welcome()
        calls = "".join(line for line in welcome.splitlines(True) if line.startswith("  "))
        self.assertIn(server.api_key, calls, "the key of the first run still holds")
        ran = subprocess.run(
            ["bash", "-e"], input=calls, cwd=README.parent, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        told = f"{welcome}\nprinted\n{ran.stdout}"
        self.assertEqual(ran.returncode, 0, told)
        for wanted in "rolecall.v1.PermissionService", '"token": "rcs_', '"allowed": true':
            self.assertIn(wanted, ran.stdout, told)
