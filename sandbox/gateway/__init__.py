"""The gateway: a small program that runs beside a stranger's web server, in its loopback, and does all the talking.

It runs in a container of its own, as closed as the stranger's, with the standard library and numpy alone; the rest of
the sandbox only ships this folder. What it is to do stands in /input/plan.json (`plan`). It serves prepared files and
takes posts (`server`), answers for the attacked defense (`answers`), calls the stranger (`calls`), and tells how it
went (`report`). Whatever a stranger sends is bounded before it is read (`bodies`).
"""
